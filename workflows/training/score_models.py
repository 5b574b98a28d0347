"""Score any model on the fields that a recipe holds out, with `segment` and `evaluate`.

    python workflows/training/score_models.py RECIPE --data DATA -m MODEL [--set KEY=VALUE …]

Each held-out field is written as an image of the recipe's pixel size, segmented and evaluated, so
models of every kind are measured alike: ours, imported ones, exported programs. The pixels of all
fields are pooled. All of the model's classes but the background count as the recipe's only class
that isn't background.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import wsi_unet
from wsi_unet.geometry import Box
from wsi_unet.metrics.confusion import class_pixels, pixel_error
from wsi_unet.training.dataset import open_fields, split_fields
from wsi_unet.training.fields import IGNORED, TrainingField
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_file import read_recipe


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-m", "--model", required=True, help="Same as for `wsi-unet segment`.")
@click.option("--invert", is_flag=True, help="Invert images, for models of bright objects.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Same as for `wsi-unet train`."
)
def main(recipe: Path, data: Path, model: str, invert: bool, settings: tuple[str, ...]) -> None:
    """Print the scores (see the module's docstring)."""
    read = read_recipe(recipe, settings)
    split = split_fields(read, open_fields(read, data))
    scores = {"held out": score(model, split.validation, read, invert=invert)}
    for number, fields in split.hold_out.items():
        scores[read.data[number].images] = score(model, fields, read, invert=invert)
    click.echo(json.dumps(scores, indent=2))


def score(
    model: str, fields: Iterable[TrainingField], recipe: Recipe, *, invert: bool
) -> dict[str, float]:
    """Return the scores over the pixels of all fields together."""
    matrix = np.zeros((2, 2), np.int64)
    for field in fields:
        with tempfile.TemporaryDirectory() as folder:
            matrix += count_pixels(model, field, recipe, Path(folder), invert=invert)
    pixels = class_pixels(matrix, 1)
    return {
        "dice": round(pixels.dice, 4),
        "precision": round(pixels.precision, 4),
        "recall": round(pixels.recall, 4),
        "pixel_error": round(pixel_error(matrix), 4),
    }


def count_pixels(
    model: str, field: TrainingField, recipe: Recipe, folder: Path, *, invert: bool
) -> NDArray[np.int64]:
    """Return the confusion matrix (2, 2) of a field, as `evaluate` counts it."""
    whole = field.read(Box.from_shape(field.shape))
    truth = (whole.labels != recipe.background_index).astype(np.uint8)
    truth[whole.labels == IGNORED] = IGNORED
    image, labels, output = folder / "i.png", folder / "l.png", folder / "o.ome.zarr"
    Image.fromarray(255 - whole.image if invert else whole.image).save(image)
    Image.fromarray(truth).save(labels)
    wsi_unet.segment(image, output, model=model, mpp=recipe.mpp, tissue="none")
    evaluation = wsi_unet.evaluate(
        output, labels, classes={"object": (1, 1)}, ignore=[IGNORED], tolerance=None
    )
    matrix = np.array(evaluation.confusion)
    return np.add.reduceat(np.add.reduceat(matrix, [0, 1], axis=0), [0, 1], axis=1)


if __name__ == "__main__":
    main()

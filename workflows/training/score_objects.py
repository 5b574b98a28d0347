"""Score the objects of any model on the fields that a recipe holds out, with our own commands.

    python workflows/training/score_objects.py RECIPE --data DATA -m MODEL [--split …] [--set …]

Each held-out field is written as an image of the recipe's pixel size, segmented, its objects are
found by the rule of the model's card (or `--split`, `--min-area`), and compared with the truth's
objects by `evaluate --instances`: F1 and PQ over the objects of all fields, the mean of AJI over
the fields, and Dice of the pixels of all objects.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

import wsi_unet
from wsi_unet.geometry import Box
from wsi_unet.training.dataset import open_fields, split_fields
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_file import read_recipe


@dataclass
class Sums:
    """Sums over fields, from which scores follow."""

    truth: int = 0
    found: int = 0
    matched: int = 0
    iou: float = 0.0
    common: int = 0
    pixels: int = 0
    aji: list[float] = field(default_factory=list)

    def scores(self) -> dict[str, float]:
        """Return the scores."""
        both = (self.truth + self.found) / 2
        return {
            "fields": len(self.aji),
            "truth": self.truth,
            "found": self.found,
            "f1": round(self.matched / both, 4) if both else math.nan,
            "pq": round(self.iou / both, 4) if both else math.nan,
            "aji": round(float(np.mean(self.aji)), 4) if self.aji else math.nan,
            "dice": round(2 * self.common / self.pixels, 4) if self.pixels else math.nan,
        }


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-m", "--model", required=True, help="Same as for `wsi-unet segment`.")
@click.option("--split", help="Same as for `wsi-unet objects`.")
@click.option("--min-area", type=float, help="Same as for `wsi-unet objects`, for all classes.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Same as for `wsi-unet train`."
)
def main(
    recipe: Path,
    data: Path,
    model: str,
    split: str | None,
    min_area: float | None,
    settings: tuple[str, ...],
) -> None:
    """Print the scores (see the module's docstring)."""
    read = read_recipe(recipe, settings)
    fields = split_fields(read, open_fields(read, data))
    rules = {"split": split, "min_area": min_area}
    scores = {"held out": score(model, fields.validation, read, rules)}
    for number, others in fields.hold_out.items():
        scores[read.data[number].images] = score(model, others, read, rules)
    click.echo(json.dumps(scores, indent=2))


def score(
    model: str, fields: Iterable[Any], recipe: Recipe, rules: dict[str, Any]
) -> dict[str, float]:
    """Return the scores of the objects of all fields together."""
    sums = Sums()
    for each in fields:
        with tempfile.TemporaryDirectory() as folder:
            add_field(sums, model, each, recipe, Path(folder), rules)
    return sums.scores()


def add_field(
    sums: Sums, model: str, field: Any, recipe: Recipe, folder: Path, rules: dict[str, Any]
) -> None:
    """Segment a field, find its objects, compare them with the truth's, and add what was found."""
    whole = Box.from_shape(field.shape)
    numbers = np.unique(field.number_objects(whole), return_inverse=True)[1].reshape(field.shape)
    image, truth, output = folder / "i.png", folder / "t.png", folder / "o.ome.zarr"
    Image.fromarray(field.read(whole).image).save(image)
    Image.fromarray(numbers.astype(np.uint16)).save(truth)
    wsi_unet.segment(image, output, model=model, mpp=recipe.mpp, tissue="none")
    wsi_unet.find_objects(output, object_labels=True, **rules)
    objects = wsi_unet.evaluate(output, truth, instances=True, tolerance=None).objects
    assert objects is not None
    sums.truth, sums.found = sums.truth + objects.truth, sums.found + objects.prediction
    sums.matched += objects.matched
    sums.iou += objects.matched * objects.sq if objects.matched else 0.0
    if not math.isnan(objects.aji):
        sums.aji.append(objects.aji)
    found = read_objects(output)
    sums.common += int(np.count_nonzero((found > 0) & (numbers > 0)))
    sums.pixels += int(np.count_nonzero(found) + np.count_nonzero(numbers))


def read_objects(output: Path) -> Any:
    """Return the label image (h, w) of a result's objects."""
    import zarr

    (name,) = [path.name for path in (output / "labels").iterdir() if path.suffix == ".objects"]
    return zarr.open_array(str(output / "labels" / name / "0"), mode="r")[...]


if __name__ == "__main__":
    main()

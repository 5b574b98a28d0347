"""Score models of ISBI-2012 EM on the slices that they weren't trained on, as the challenge does.

    python workflows/training/score_em.py OUTPUT --data DATA [--tta d4]

OUTPUT is what cross_validate.py left. Each held-out slice is segmented with its fold's model. The
cells are where their probability exceeds a threshold; V_rand and V_info (Arganda-Carreras et al.
2015) are taken after border thinning, as means over slices. The best threshold is that of the
highest mean V_rand, as in the challenge. Dice and pixel error are means over slices, too, at one
half; "soft" is Dice of the probabilities with squares in its denominator, mean over cells and
membranes (Milletari et al. 2016; NVIDIA's U-Net examples report it so). `--tta d4` labels by the
mean over eight flips and turns; the paper's figures are means over seven turns. The figures go to
`em.json` or `em-d4.json` in OUTPUT.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import wsi_unet
from wsi_unet.metrics.overlaps import count_overlaps
from wsi_unet.metrics.segmentation import (
    SegmentScores,
    score_segments,
    segments_of,
    thin_borders,
)
from wsi_unet.models.running.augmentation import Tta
from wsi_unet.training.data import open_fields, split
from wsi_unet.training.recipe_file import read_recipe

THRESHOLDS = [round(0.1 * step, 1) for step in range(1, 10)]


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--tta", default="none", help="As of segment.")
def main(output: Path, data: Path, tta: Tta) -> None:
    """See the module's text."""
    found: dict[float, list[SegmentScores]] = {threshold: [] for threshold in THRESHOLDS}
    pixels: list[dict[str, float]] = []
    for model in sorted(output.glob("fold-*")):
        for cells, truth in held_out(model, data, tta):
            pixels.append(pixel_scores(cells, truth))
            for threshold, scores in found.items():
                scores.append(scored(cells > threshold, truth))
    means = {threshold: mean_scores(scores) for threshold, scores in found.items()}
    best = max(means, key=lambda threshold: means[threshold]["v_rand"])
    document = {
        "slices": len(pixels),
        "tta": tta,
        **{name: round(float(np.mean([one[name] for one in pixels])), 4) for name in pixels[0]},
        "at 0.5": means[0.5],
        "best": {"threshold": best, **means[best]},
    }
    name = "em.json" if tta == "none" else f"em-{tta}.json"
    (output / name).write_text(json.dumps(document, indent=2), encoding="utf-8")
    click.echo(json.dumps(document, indent=2))


def held_out(
    model: Path, data: Path, tta: Tta
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield of each held-out slice the probability of cells and where cells are, (h, w)."""
    recipe = read_recipe(model / "training" / "recipe.toml")
    labels = data / recipe.data[0].labels
    for field in split(recipe, open_fields(recipe, data)).validation:
        image = data / field.name
        truth = np.asarray(Image.open(labels / image.name)) > 0
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "slice.ome.zarr"
            wsi_unet.segment(
                image, place, model=model, outputs=("labels", "probabilities"), tta=tta
            )
            probabilities = wsi_unet.open_probabilities(place)
            cells = probabilities.sel(c="cell").to_numpy().astype(np.float32)
            cells /= 255
        yield cells, truth


def pixel_scores(cells: NDArray[np.float32], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Return how probabilities of cells agree with where cells are, pixel by pixel."""
    found = cells > 0.5
    membranes = soft_dice(1 - cells, ~truth)
    return {
        "pixel_error": float((found != truth).mean()),
        "dice of cells": soft_dice(found.astype(np.float32), truth),
        "dice of membranes": soft_dice(1 - found.astype(np.float32), ~truth),
        "soft dice": (soft_dice(cells, truth) + membranes) / 2,
    }


def soft_dice(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Return 2·Σpt / (Σp² + Σt²); with nothing but 0 and 1 that is Dice."""
    overlap = float(probability[truth].sum(dtype=np.float64))
    squares = float(np.square(probability, dtype=np.float64).sum())
    return 2 * overlap / (squares + int(truth.sum()))


def scored(cells: NDArray[np.bool_], truth: NDArray[np.bool_]) -> SegmentScores:
    """Return how cells, parted by membranes, agree with the true ones."""
    segments = thin_borders(segments_of(cells))
    return score_segments(count_overlaps(segments_of(truth), segments))


def mean_scores(scores: list[SegmentScores]) -> dict[str, Any]:
    """Return the means over slices."""
    names = ("v_rand", "v_rand_split", "v_rand_merge", "v_info", "rand_error")
    return {name: float(np.mean([getattr(one, name) for one in scores])) for name in names}


if __name__ == "__main__":
    main()

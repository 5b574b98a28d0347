"""Score models of ISBI-2012 EM on the slices that they weren't trained on, as the challenge does.

    python workflows/training/score_em.py OUTPUT --data DATA [--tta d4]

OUTPUT is the folder that cross_validate.py wrote. Each held-out slice is segmented with the model
of its fold, and cells are the pixels whose probability exceeds a threshold. The scores, written to
`em.json` (or `em-d4.json`) in OUTPUT, are:

- V_rand and V_info (Arganda-Carreras et al. 2015), after thinning of the boundaries, as means over
  slices. The best threshold is the one with the highest mean V_rand: over all slices, or over the
  slices of each network, as in the challenge, where a submission is one network's.
- Dice and pixel error at a threshold of one half, as means over slices.
- The challenge's own pixel error, as in its table: 1 − F of the cells' pixels, pooled over all
  slices, at the threshold where it is least (as in the organisers' Fiji plug-in).
- Soft Dice: Dice of the probabilities with squares in the denominator, mean over cells and
  membranes (Milletari et al. 2016; also in NVIDIA's U-Net examples).

With `--tta d4`, labels are from the mean over eight flips and rotations; the paper's scores are
from means over seven rotations.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import wsi_unet
from wsi_unet.metrics.overlaps import count_overlaps
from wsi_unet.metrics.segments import (
    SegmentScores,
    label_segments,
    score_segments,
    thin_membranes,
)
from wsi_unet.models.inference.augmentation import Tta
from wsi_unet.training.dataset import open_fields, split_fields
from wsi_unet.training.recipe_file import read_recipe

THRESHOLDS = [*(round(0.1 * step, 1) for step in range(1, 10)), 0.95, 0.97, 0.98, 0.99]


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--tta", default="none", help="Same as for `wsi-unet segment`.")
def main(output: Path, data: Path, tta: Tta) -> None:
    """Write and print the scores (see the module's docstring)."""
    folds = [
        [score_slice(cells, truth) for cells, truth in predict_held_out(model, data, tta)]
        for model in sorted(output.glob("fold-*"))
    ]
    slices = [scores for fold in folds for scores in fold]
    if not slices:
        raise click.ClickException(
            f"{output} holds no models of folds: run cross_validate.py first"
        )
    pixels = average([scores.pixels for scores in slices])
    f_scores = {threshold: f_score(threshold, slices) for threshold in THRESHOLDS}
    highest = max(THRESHOLDS, key=lambda threshold: f_scores[threshold])
    best, own = best_threshold(slices), [best_threshold(fold) for fold in folds]
    document = {
        "slices": len(slices),
        "tta": tta,
        "pixel error of the challenge": round(1 - f_scores[highest], 4),
        "at": highest,
        **{name: round(value, 4) for name, value in pixels.items()},
        "at 0.5": average_segments(0.5, slices),
        "best": {"threshold": best} | average_segments(best, slices),
        "best of each network": {"thresholds": own}
        | average(
            [
                average_segments(threshold, [scores])
                for threshold, fold in zip(own, folds, strict=True)
                for scores in fold
            ]
        ),
    }
    name = "em.json" if tta == "none" else f"em-{tta}.json"
    (output / name).write_text(json.dumps(document, indent=2), encoding="utf-8")
    click.echo(json.dumps(document, indent=2))


@dataclass(frozen=True)
class SliceScores:
    """Scores of a slice.

    Attributes:
        pixels: scores at a threshold of one half, and of the probabilities, by name.
        counts: by threshold, the cells' pixels in both prediction and truth, and the sum of the
            cells' pixels in each.
        segments: scores of the segments, by threshold.
    """

    pixels: dict[str, float]
    counts: dict[float, tuple[int, int]]
    segments: dict[float, SegmentScores]


def score_slice(cells: NDArray[np.float32], truth: NDArray[np.bool_]) -> SliceScores:
    """Score the cells' probabilities of a slice."""
    return SliceScores(
        score_pixels(cells, truth),
        {threshold: count_cells(cells > threshold, truth) for threshold in THRESHOLDS},
        {threshold: score_cells(cells > threshold, truth) for threshold in THRESHOLDS},
    )


def count_cells(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the number of pixels in both, and the sum of the numbers of pixels in each."""
    return int((predicted & truth).sum()), int(predicted.sum()) + int(truth.sum())


def f_score(threshold: float, slices: list[SliceScores]) -> float:
    """Return F of the cells' pixels of all slices."""
    both, total = np.sum([scores.counts[threshold] for scores in slices], axis=0).tolist()
    return float(2 * both / total)


def best_threshold(slices: list[SliceScores]) -> float:
    """Return the threshold with the highest mean V_rand."""
    return max(
        THRESHOLDS,
        key=lambda threshold: float(
            np.mean([scores.segments[threshold].v_rand for scores in slices])
        ),
    )


def average_segments(threshold: float, slices: list[SliceScores]) -> dict[str, float]:
    """Return the means of the segments' scores over slices."""
    names = ("v_rand", "v_rand_split", "v_rand_merge", "v_info", "rand_error")
    return average(
        [{name: getattr(scores.segments[threshold], name) for name in names} for scores in slices]
    )


def average(documents: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each number."""
    return {
        name: float(np.mean([document[name] for document in documents])) for name in documents[0]
    }


def predict_held_out(
    model: Path, data: Path, tta: Tta
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield the cells' probabilities and the true cells of each held-out slice, (h, w)."""
    recipe = read_recipe(model / "training" / "recipe.toml")
    labels = data / recipe.data[0].labels
    for field in split_fields(recipe, open_fields(recipe, data)).validation:
        image = data / field.name
        truth = np.asarray(Image.open(labels / image.name)) > 0
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "slice.ome.zarr"
            wsi_unet.segment(
                image, result, model=model, outputs=("labels", "probabilities"), tta=tta
            )
            probabilities = wsi_unet.open_probabilities(result)
            cells = probabilities.sel(c="cell").to_numpy().astype(np.float32)
            cells /= 255
        yield cells, truth


def score_pixels(cells: NDArray[np.float32], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Return the pixel-wise scores of the cells' probabilities."""
    predicted = cells > 0.5
    membranes = soft_dice(1 - cells, ~truth)
    return {
        "pixel_error": float((predicted != truth).mean()),
        "dice of cells": dice(predicted, truth),
        "dice of membranes": dice(~predicted, ~truth),
        "soft dice": (soft_dice(cells, truth) + membranes) / 2,
    }


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient."""
    return soft_dice(predicted.astype(np.float32), truth)


def soft_dice(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Return 2·Σpt / (Σp² + Σt²), which is Dice if all probabilities are 0 or 1."""
    overlap = float(probability[truth].sum(dtype=np.float64))
    squares = float(np.square(probability, dtype=np.float64).sum())
    return 2 * overlap / (squares + int(truth.sum()))


def score_cells(cells: NDArray[np.bool_], truth: NDArray[np.bool_]) -> SegmentScores:
    """Return the scores of cells, separated by thinned membranes, against the true cells."""
    segments = thin_membranes(label_segments(cells))
    return score_segments(count_overlaps(label_segments(truth), segments))


if __name__ == "__main__":
    main()

"""Score models of ISBI-2012 EM on the slices that they weren't trained on, as the challenge does.

    python workflows/training/score_em.py OUTPUT --data DATA [--tta d4]

OUTPUT is what cross_validate.py left. Each held-out slice is segmented with its fold's model. The
cells are where their probability exceeds a threshold; V_rand and V_info (Arganda-Carreras et al.
2015) are taken after border thinning, as means over slices. The best threshold is that of the
highest mean V_rand: of all slices, or of each network on its own slices, as in the challenge, where
a submission is one network's. Dice and pixel error are means over slices, too, at one half; the
challenge's own pixel error, the one in its table, is 1 − F of the cells' pixels, those of all
slices pooled, at the threshold where that is least (so the organisers' plug-in takes it, Trainable
Segmentation for Fiji). "Soft" is Dice of the probabilities with squares in its denominator, mean
over cells and membranes (Milletari et al. 2016; NVIDIA's U-Net examples report it so). `--tta d4`
labels by the mean over eight flips and turns; the paper's figures are means over seven turns. The
figures go to `em.json` or `em-d4.json` in OUTPUT.
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
    score_segments,
    label_segments,
    thin_boundaries,
)
from wsi_unet.models.inference.augmentation import Tta
from wsi_unet.training.dataset import open_fields, split_fields
from wsi_unet.training.recipe_file import read_recipe

THRESHOLDS = [*(round(0.1 * step, 1) for step in range(1, 10)), 0.95, 0.97, 0.98, 0.99]


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--tta", default="none", help="As of segment.")
def main(output: Path, data: Path, tta: Tta) -> None:
    """See the module's text."""
    folds = [
        [slice_scores(cells, truth) for cells, truth in held_out(model, data, tta)]
        for model in sorted(output.glob("fold-*"))
    ]
    slices = [one for fold in folds for one in fold]
    if not slices:
        raise click.ClickException(
            f"{output} holds no models of folds: run cross_validate.py first"
        )
    pixels = mean_of([one.pixels for one in slices])
    agreed = {threshold: f_score(threshold, slices) for threshold in THRESHOLDS}
    closest = max(THRESHOLDS, key=lambda threshold: agreed[threshold])
    best, own = best_threshold(slices), [best_threshold(fold) for fold in folds]
    document = {
        "slices": len(slices),
        "tta": tta,
        "pixel error of the challenge": round(1 - agreed[closest], 4),
        "at": closest,
        **{name: round(value, 4) for name, value in pixels.items()},
        "at 0.5": segments_at(0.5, slices),
        "best": {"threshold": best} | segments_at(best, slices),
        "best of each network": {"thresholds": own}
        | mean_of(
            [
                segments_at(threshold, [one])
                for threshold, fold in zip(own, folds, strict=True)
                for one in fold
            ]
        ),
    }
    name = "em.json" if tta == "none" else f"em-{tta}.json"
    (output / name).write_text(json.dumps(document, indent=2), encoding="utf-8")
    click.echo(json.dumps(document, indent=2))


@dataclass(frozen=True)
class SliceScores:
    """What one slice's probabilities are worth.

    Attributes:
        pixels: scores at one half, and of the probabilities themselves, by name.
        counts: by threshold, of cells: px that are in both, and px in either, added up.
        segments: by threshold.
    """

    pixels: dict[str, float]
    counts: dict[float, tuple[int, int]]
    segments: dict[float, SegmentScores]


def slice_scores(cells: NDArray[np.float32], truth: NDArray[np.bool_]) -> SliceScores:
    """Score the probabilities of cells of a slice."""
    return SliceScores(
        pixel_scores(cells, truth),
        {threshold: agreement(cells > threshold, truth) for threshold in THRESHOLDS},
        {threshold: scored(cells > threshold, truth) for threshold in THRESHOLDS},
    )


def agreement(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[int, int]:
    """Return how many px are in both, and how many each has, added up."""
    return int((found & truth).sum()), int(found.sum()) + int(truth.sum())


def f_score(threshold: float, slices: list[SliceScores]) -> float:
    """Return F of the cells' pixels of all slices."""
    both, either = np.sum([one.counts[threshold] for one in slices], axis=0).tolist()
    return float(2 * both / either)


def best_threshold(slices: list[SliceScores]) -> float:
    """Return the threshold with the highest mean V_rand."""
    return max(
        THRESHOLDS,
        key=lambda threshold: float(np.mean([one.segments[threshold].v_rand for one in slices])),
    )


def segments_at(threshold: float, slices: list[SliceScores]) -> dict[str, float]:
    """Return the means of the segments' scores over slices."""
    names = ("v_rand", "v_rand_split", "v_rand_merge", "v_info", "rand_error")
    return mean_of(
        [{name: getattr(one.segments[threshold], name) for name in names} for one in slices]
    )


def mean_of(documents: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each number."""
    return {name: float(np.mean([one[name] for one in documents])) for name in documents[0]}


def held_out(
    model: Path, data: Path, tta: Tta
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield of each held-out slice the probability of cells and where cells are, (h, w)."""
    recipe = read_recipe(model / "training" / "recipe.toml")
    labels = data / recipe.data[0].labels
    for field in split_fields(recipe, open_fields(recipe, data)).validation:
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
        "dice of cells": dice(found, truth),
        "dice of membranes": dice(~found, ~truth),
        "soft dice": (soft_dice(cells, truth) + membranes) / 2,
    }


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return twice what both have over what each has."""
    return soft_dice(found.astype(np.float32), truth)


def soft_dice(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Return 2·Σpt / (Σp² + Σt²); with nothing but 0 and 1 that is Dice."""
    overlap = float(probability[truth].sum(dtype=np.float64))
    squares = float(np.square(probability, dtype=np.float64).sum())
    return 2 * overlap / (squares + int(truth.sum()))


def scored(cells: NDArray[np.bool_], truth: NDArray[np.bool_]) -> SegmentScores:
    """Return how cells, parted by membranes, agree with the true ones."""
    segments = thin_boundaries(label_segments(cells))
    return score_segments(count_overlaps(label_segments(truth), segments))


if __name__ == "__main__":
    main()

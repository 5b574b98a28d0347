"""Counting over the boxes of a pair, in memory that doesn't grow with the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import EvaluationError
from wsi_unet.evaluation.classes import MOST, Classes
from wsi_unet.evaluation.compute import Compute
from wsi_unet.evaluation.pairs import AreaBlocks, Pair, PairPixels
from wsi_unet.geometry import BlockIndex
from wsi_unet.metrics.boundaries import (
    Boundaries,
    boundary_halo,
    count_boundaries,
    merge_boundaries,
)
from wsi_unet.metrics.components import Edges, Joined, label_chunk
from wsi_unet.metrics.overlaps import Labels, Overlaps, count_overlaps, merge_overlaps


@dataclass(frozen=True, eq=False)
class Counts:
    """What was counted of classes or objects.

    Attributes:
        overlaps: pixels by value in the truth and in the prediction.
        boundaries: boundary pixels by value.
        truth_edges: of objects that are connected parts, by box; empty otherwise.
        prediction_edges: the same.
    """

    overlaps: Overlaps
    boundaries: Boundaries = field(default_factory=dict)
    truth_edges: dict[BlockIndex, Edges] = field(default_factory=dict)
    prediction_edges: dict[BlockIndex, Edges] = field(default_factory=dict)


def merge_counts(parts: Sequence[Counts]) -> Counts:
    """Return the counts of several boxes together."""
    return Counts(
        merge_overlaps(part.overlaps for part in parts),
        merge_boundaries(part.boundaries for part in parts),
        {index: edges for part in parts for index, edges in part.truth_edges.items()},
        {index: edges for part in parts for index, edges in part.prediction_edges.items()},
    )


def count_classes(
    blocks: AreaBlocks, classes: Classes, tolerance: float | None, compute: Compute
) -> Counts:
    """Count the pixels of classes in truth and prediction, and along their boundaries.

    Args:
        blocks: how the area is cut; makes no difference to the counts.
        classes: what the truth's values mean.
        tolerance: of boundaries, px; None to leave them out.
        compute: where, and of which pair.
    """

    def count(pair: Pair, index: BlockIndex) -> Counts:
        core = blocks.core(index)
        window = core if tolerance is None else blocks.window(core, boundary_halo(tolerance))
        pixels = pair.read(window)
        prediction = _class_values(pair.prediction.name, pixels, pixels.prediction, MOST)
        truth = classes.translate(
            _class_values(pair.truth.name, pixels, pixels.truth, len(classes.lookup))
        )
        return _count_both(truth, prediction, pixels.valid, blocks, index, tolerance)

    return compute(count, blocks.grid, merge_counts)


def _class_values(name: str, pixels: PairPixels, values: Labels, most: int) -> Labels:
    """Return class values with 0 where they aren't compared, if they can be classes at all."""
    if not pixels.valid.all():
        values = values * pixels.valid
    largest = int(values.max(initial=0))
    if largest >= most:
        raise EvaluationError(
            f"{name}: holds the value {largest}, and classes go to {most - 1}; if values are "
            "numbers of objects, say --instances"
        )
    return values


def _count_both(
    truth: Labels,
    prediction: Labels,
    valid: NDArray[np.bool_],
    blocks: AreaBlocks,
    index: BlockIndex,
    tolerance: float | None,
) -> Counts:
    """Count a box whose arrays have a halo, if there is a tolerance."""
    core = blocks.core(index)
    if tolerance is None:
        return Counts(count_overlaps(truth, prediction, valid))
    inside = core.relative_to(blocks.window(core, boundary_halo(tolerance)))
    part = inside.slices()
    return Counts(
        count_overlaps(truth[part], prediction[part], valid[part]),
        count_boundaries(truth, prediction, valid, inside, tolerance),
    )


@dataclass(frozen=True)
class Kinds:
    """Whether objects are numbered in the truth and in the prediction, or connected parts."""

    truth_numbered: bool
    prediction_numbered: bool


def count_objects(
    blocks: AreaBlocks, kinds: Kinds, tolerance: float | None, compute: Compute
) -> Counts:
    """Count the pixels that objects of truth and prediction share.

    Memory grows with the number of objects, and for connected parts with the length of the
    boxes' sides, not with the area.

    Args:
        blocks: how the area is cut; makes no difference to the counts.
        kinds: what the objects are.
        tolerance: of the boundary between objects and background, px; None to leave it out.
        compute: where, and of which pair.

    Returns:
        Counts by object number; boundaries by 0 and 1, for background and objects.
    """
    number = {index: place for place, index in enumerate(blocks.grid)}

    def count(pair: Pair, index: BlockIndex) -> Counts:
        core = blocks.core(index)
        window = core if tolerance is None else blocks.window(core, boundary_halo(tolerance))
        pixels = pair.read(window)
        part = core.relative_to(window).slices()
        truth, prediction = (_numbers(values) for values in pixels.objects)
        edges: list[dict[BlockIndex, Edges]] = [{}, {}]
        found = []
        for place, (values, numbered) in enumerate(
            ((truth[part], kinds.truth_numbered), (prediction[part], kinds.prediction_numbered))
        ):
            if not numbered:
                values, edges[place][index] = label_chunk(values, number[index])
            found.append(values)
        both = (truth > 0).astype(np.uint8), (prediction > 0).astype(np.uint8)
        counts = _count_both(*both, pixels.valid, blocks, index, tolerance)
        overlaps = count_overlaps(found[0], found[1], pixels.valid[part])
        return Counts(overlaps, counts.boundaries, edges[0], edges[1])

    counts = compute(count, blocks.grid, merge_counts)
    truth, prediction = counts.overlaps.truth, counts.overlaps.prediction
    if not kinds.truth_numbered:
        truth = Joined.of(counts.truth_edges).objects(truth)
    if not kinds.prediction_numbered:
        prediction = Joined.of(counts.prediction_edges).objects(prediction)
    return Counts(Overlaps.of(truth, prediction, counts.overlaps.pixels), counts.boundaries)


def _numbers(values: Labels) -> Labels:
    """Return numbers that can be counted on: unsigned 64-bit ones mix with none others."""
    return values.astype(np.int64) if values.dtype.itemsize == 8 else values


def has_several_values(blocks: AreaBlocks, compute: Compute) -> tuple[bool, bool]:
    """Whether truth and prediction hold more than one value besides 0 where they are compared."""

    def look(pair: Pair, index: BlockIndex) -> NDArray[np.int64]:
        extremes = []
        for values in pair.read(blocks.core(index)).objects:
            there = values[values > 0]
            extremes.append(
                (int(there.min()), int(there.max())) if there.size else (np.iinfo(np.int64).max, 0)
            )
        return np.array(extremes, np.int64)

    def merge(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        stack = np.stack(list(parts))
        return np.stack([stack[..., 0].min(axis=0), stack[..., 1].max(axis=0)], axis=1)

    found = compute(look, blocks.grid, merge)
    truth, prediction = ((found[:, 1] > found[:, 0]) & (found[:, 1] > 0)).tolist()
    return truth, prediction

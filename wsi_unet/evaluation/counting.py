"""Counts over the boxes of a pair, in memory that doesn't grow with the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import EvaluationError
from wsi_unet.evaluation.class_mapping import CLASS_VALUES, ClassMapping
from wsi_unet.evaluation.map_reduce import MapReduce
from wsi_unet.evaluation.pairs import AreaBoxes, Pair
from wsi_unet.geometry import BlockIndex
from wsi_unet.metrics.boundaries import (
    Boundaries,
    boundary_halo,
    count_boundaries,
    merge_boundaries,
)
from wsi_unet.metrics.components import ChunkEdges, JoinedComponents, label_chunk
from wsi_unet.metrics.overlaps import LabelArray, Overlaps, count_overlaps, merge_overlaps


@dataclass(frozen=True)
class Unpredicted:
    """Numbers of pixels that aren't compared because the model didn't look there.

    Attributes:
        pixels: all of them.
        in_class: those that the truth doesn't call background.
    """

    pixels: int = 0
    in_class: int = 0

    @classmethod
    def count(cls, truth: LabelArray, unpredicted: NDArray[np.bool_]) -> Unpredicted:
        """Count the pixels for which `unpredicted` (h, w) is true; 0 is the truth's background."""
        return cls(int(unpredicted.sum()), int(np.count_nonzero(truth[unpredicted])))

    def __add__(self, other: Unpredicted) -> Unpredicted:
        return Unpredicted(self.pixels + other.pixels, self.in_class + other.in_class)


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of classes or objects.

    Attributes:
        overlaps: pixels by value in the truth and in the prediction.
        boundaries: boundary pixels by value.
        truth_edges: edges of each box whose objects in the truth are components; empty otherwise.
        prediction_edges: edges of each box whose objects in the prediction are components.
        unpredicted: pixels that aren't compared because the model didn't look there.
    """

    overlaps: Overlaps
    boundaries: Boundaries = field(default_factory=dict)
    truth_edges: dict[BlockIndex, ChunkEdges] = field(default_factory=dict)
    prediction_edges: dict[BlockIndex, ChunkEdges] = field(default_factory=dict)
    unpredicted: Unpredicted = field(default_factory=Unpredicted)


def merge_counts(parts: Sequence[Counts]) -> Counts:
    """Add up the counts of several boxes."""
    return Counts(
        merge_overlaps(part.overlaps for part in parts),
        merge_boundaries(part.boundaries for part in parts),
        {index: edges for part in parts for index, edges in part.truth_edges.items()},
        {index: edges for part in parts for index, edges in part.prediction_edges.items()},
        sum((part.unpredicted for part in parts), start=Unpredicted()),
    )


def count_classes(
    boxes: AreaBoxes, mapping: ClassMapping, tolerance: float | None, map_reduce: MapReduce
) -> Counts:
    """Count the pixels of classes in truth and prediction, and along their boundaries.

    Args:
        boxes: the boxes of the area; how it is cut makes no difference to the counts.
        mapping: which class of the truth is which of the prediction.
        tolerance: tolerance of boundaries, px; None leaves them out.
        map_reduce: counts the boxes of a pair.
    """

    def count(pair: Pair, index: BlockIndex) -> Counts:
        core = boxes.core(index)
        window = core if tolerance is None else boxes.widen(core, boundary_halo(tolerance))
        pixels = pair.read(window)
        prediction = _check_classes(
            pair.prediction.name, pixels.prediction, pixels.valid, CLASS_VALUES
        )
        known = pixels.valid | pixels.unpredicted
        truth = mapping.translate(
            _check_classes(pair.truth.name, pixels.truth, known, len(mapping.lookup))
        )
        part = core.relative_to(window).slices()
        counts = _count_box(truth, prediction, pixels.valid, boxes, index, tolerance)
        unpredicted = Unpredicted.count(truth[part], pixels.unpredicted[part])
        return replace(counts, unpredicted=unpredicted)

    return map_reduce(count, boxes.grid, merge_counts)


def _check_classes(name: str, values: LabelArray, known: NDArray[np.bool_], end: int) -> LabelArray:
    """Return class values, with 0 where `known` is false.

    Raises:
        EvaluationError: a value isn't below `end`, so it can't be a class.
    """
    if not known.all():
        values = values * known
    largest = int(values.max(initial=0))
    if largest >= end:
        raise EvaluationError(
            f"{name}: holds the value {largest}, and classes go up to {end - 1}; if values are "
            "numbers of objects, use `instances=True`"
        )
    return values


def _count_box(
    truth: LabelArray,
    prediction: LabelArray,
    valid: NDArray[np.bool_],
    boxes: AreaBoxes,
    index: BlockIndex,
    tolerance: float | None,
) -> Counts:
    """Count one box; where there is a tolerance, the arrays have a halo around it."""
    core = boxes.core(index)
    if tolerance is None:
        return Counts(count_overlaps(truth, prediction, valid))
    inside = core.relative_to(boxes.widen(core, boundary_halo(tolerance)))
    part = inside.slices()
    return Counts(
        count_overlaps(truth[part], prediction[part], valid[part]),
        count_boundaries(truth, prediction, valid, inside, tolerance),
    )


@dataclass(frozen=True)
class Numbering:
    """Whether values are numbers of objects; otherwise, objects are connected components.

    Attributes:
        truth: whether values of the truth are.
        prediction: whether values of the prediction are.
        tables: what identifies the tables of stored objects whose numbers are the values, of the
            truth and of the prediction; None for none.
    """

    truth: bool
    prediction: bool
    tables: tuple[str | None, str | None] = (None, None)


def count_objects(
    boxes: AreaBoxes, numbering: Numbering, tolerance: float | None, map_reduce: MapReduce
) -> Counts:
    """Count the pixels that objects of truth and prediction share.

    Memory grows with the number of objects, and for components with the length of the boxes'
    sides, not with the area.

    Args:
        boxes: the boxes of the area; how it is cut makes no difference to the counts.
        numbering: what the objects are.
        tolerance: tolerance of the boundary between objects and background, px; None leaves it
            out.
        map_reduce: counts the boxes of a pair.

    Returns:
        Counts by object number; boundaries by 0 and 1, for background and objects.

    Raises:
        EvaluationError: stored objects were found anew in the meantime.
    """
    chunk_numbers = {index: number for number, index in enumerate(boxes.grid)}

    def count(pair: Pair, index: BlockIndex) -> Counts:
        if pair.tables != numbering.tables:  # each process opens them by itself
            raise EvaluationError(
                f"{pair.prediction.name}: objects were found anew while they were compared; "
                "evaluate again"
            )
        core = boxes.core(index)
        window = core if tolerance is None else boxes.widen(core, boundary_halo(tolerance))
        pixels = pair.read(window)
        part = core.relative_to(window).slices()
        truth, prediction = (_signed(values) for values in pixels.objects)
        truth_edges: dict[BlockIndex, ChunkEdges] = {}
        edges: dict[BlockIndex, ChunkEdges] = {}
        truth_numbers, numbers = truth[part], prediction[part]
        if not numbering.truth:
            truth_numbers, truth_edges[index] = label_chunk(truth_numbers, chunk_numbers[index])
        if not numbering.prediction:
            numbers, edges[index] = label_chunk(numbers, chunk_numbers[index])
        foreground = (truth > 0).astype(np.uint8), (prediction > 0).astype(np.uint8)
        counts = _count_box(*foreground, pixels.valid, boxes, index, tolerance)
        overlaps = count_overlaps(truth_numbers, numbers, pixels.valid[part])
        unpredicted = Unpredicted.count(pixels.truth[part], pixels.unpredicted[part])
        return Counts(overlaps, counts.boundaries, truth_edges, edges, unpredicted)

    counts = map_reduce(count, boxes.grid, merge_counts)
    truth, prediction = counts.overlaps.truth, counts.overlaps.prediction
    if not numbering.truth:
        truth = JoinedComponents.from_edges(counts.truth_edges).find_objects(truth)
    if not numbering.prediction:
        prediction = JoinedComponents.from_edges(counts.prediction_edges).find_objects(prediction)
    overlaps = Overlaps.from_pairs(truth, prediction, counts.overlaps.pixels)
    return Counts(overlaps, counts.boundaries, unpredicted=counts.unpredicted)


def _signed(values: LabelArray) -> LabelArray:
    """Return 64-bit values as signed integers: numpy mixes unsigned ones with others as floats."""
    return values.astype(np.int64) if values.dtype.itemsize == 8 else values


def has_several_values(boxes: AreaBoxes, map_reduce: MapReduce) -> tuple[bool, bool]:
    """Return whether truth and prediction hold several values besides 0 where they are compared."""

    def find_extremes(pair: Pair, index: BlockIndex) -> NDArray[np.int64]:
        extremes = []
        for values in pair.read(boxes.core(index)).objects:
            above = values[values > 0]
            extremes.append(
                (int(above.min()), int(above.max())) if above.size else (np.iinfo(np.int64).max, 0)
            )
        return np.array(extremes, np.int64)

    def merge(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        stack = np.stack(list(parts))
        return np.stack([stack[..., 0].min(axis=0), stack[..., 1].max(axis=0)], axis=1)

    extremes = map_reduce(find_extremes, boxes.grid, merge)
    truth, prediction = ((extremes[:, 1] > extremes[:, 0]) & (extremes[:, 1] > 0)).tolist()
    return truth, prediction

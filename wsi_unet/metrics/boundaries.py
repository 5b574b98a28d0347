"""How well boundaries agree within a tolerance: the boundary F1 of each class.

Csurka, Larlus, Perronnin, "What is a good evaluation measure for semantic segmentation?",
BMVC 2013. Here a boundary pixel of a class is a pixel of it that shares a side with a pixel of
another class; pixels that aren't compared, or lie outside, don't count as another class. Distances
are Euclidean, from centre to centre.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box
from wsi_unet.metrics.confusion import ratio

BoolArray = NDArray[np.bool_]

MAX_SHIFTED = 16.0
"""px: up to this distance, shifting a mask row by row beats scipy's distance transform, which costs
the same at any distance: on 2048² px 15 ms against 400 ms at 2 px, 7 s against 0.5 s at 64 px."""


@dataclass(frozen=True)
class BoundaryPixels:
    """Numbers of boundary pixels of one class; those of several chunks can be added up.

    Attributes:
        truth: boundary pixels in the truth.
        truth_met: boundary pixels in the truth that lie within the tolerance of one in the
            prediction.
        prediction: boundary pixels in the prediction.
        prediction_met: boundary pixels in the prediction that lie within the tolerance of one in
            the truth.
    """

    truth: int = 0
    truth_met: int = 0
    prediction: int = 0
    prediction_met: int = 0

    def __add__(self, other: BoundaryPixels) -> BoundaryPixels:
        return BoundaryPixels(
            self.truth + other.truth,
            self.truth_met + other.truth_met,
            self.prediction + other.prediction,
            self.prediction_met + other.prediction_met,
        )

    @property
    def f1(self) -> float:
        """2 P R / (P + R) of precision and recall: 0 if just one has boundaries, NaN if neither."""
        if not self.truth or not self.prediction:
            return ratio(0, self.truth + self.prediction)
        precision = self.prediction_met / self.prediction
        recall = self.truth_met / self.truth
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


Boundaries = dict[int, BoundaryPixels]
"""Boundary pixels by class value."""


def boundary_halo(tolerance: float) -> int:
    """Return how many px around a chunk its boundary counts depend on."""
    return math.floor(tolerance) + 1


def count_boundaries(
    truth: NDArray[Any], prediction: NDArray[Any], valid: BoolArray, core: Box, tolerance: float
) -> Boundaries:
    """Count the boundary pixels of a chunk.

    Args:
        truth: (h, w) classes of the chunk's core and `boundary_halo` px around it, fewer where
            the image ends.
        prediction: (h, w) classes of the same pixels.
        valid: (h, w) which pixels are compared.
        core: the pixels that are counted, in the frame of the arrays.
        tolerance: px, at least 0.

    Returns:
        Counts of each class that has boundary pixels.
    """
    boundaries: Boundaries = {}
    inside = core.slices()
    for value in np.union1d(np.unique(truth), np.unique(prediction)).tolist():
        in_truth = _find_boundary(truth == value, valid)
        in_prediction = _find_boundary(prediction == value, valid)
        if not (in_truth.any() or in_prediction.any()):
            continue
        near_truth, near_prediction = dilate(in_truth, tolerance), dilate(in_prediction, tolerance)
        counts = BoundaryPixels(
            truth=int(in_truth[inside].sum()),
            truth_met=int((in_truth & near_prediction)[inside].sum()),
            prediction=int(in_prediction[inside].sum()),
            prediction_met=int((in_prediction & near_truth)[inside].sum()),
        )
        if counts.truth or counts.prediction:
            boundaries[int(value)] = counts
    return boundaries


def merge_boundaries(parts: Iterable[Boundaries]) -> Boundaries:
    """Add up the counts of several chunks."""
    merged: Boundaries = {}
    for part in parts:
        for value, counts in part.items():
            merged[value] = merged.get(value, BoundaryPixels()) + counts
    return merged


def _find_boundary(mask: BoolArray, valid: BoolArray) -> BoolArray:
    """Return the pixels of a mask that share a side with a valid pixel that isn't in it."""
    outside = valid & ~mask
    touched = np.zeros_like(mask)
    touched[1:] |= outside[:-1]
    touched[:-1] |= outside[1:]
    touched[:, 1:] |= outside[:, :-1]
    touched[:, :-1] |= outside[:, 1:]
    result: BoolArray = mask & valid & touched
    return result


def dilate(mask: BoolArray, distance: float) -> BoolArray:
    """Return which pixels lie at most `distance` px from a pixel of the mask."""
    if not mask.any():
        return mask
    if distance > MAX_SHIFTED:
        from scipy.ndimage import distance_transform_edt

        near: BoolArray = distance_transform_edt(~mask) <= distance
        return near
    result = np.zeros_like(mask)
    reach = math.floor(distance)
    rows = mask.shape[0]
    for dy in range(min(reach, rows - 1) + 1):
        across = math.isqrt(math.floor(distance * distance) - dy * dy)
        wide = _dilate_rows(mask, across)
        result[dy:] |= wide[: rows - dy]
        result[: rows - dy] |= wide[dy:]
    return result


def _dilate_rows(mask: BoolArray, across: int) -> BoolArray:
    """Return which pixels have a pixel of the mask in their row at most `across` px away."""
    columns = mask.shape[1]
    wide = mask.copy()
    for dx in range(1, min(across, columns - 1) + 1):
        wide[:, dx:] |= mask[:, : columns - dx]
        wide[:, : columns - dx] |= mask[:, dx:]
    return wide

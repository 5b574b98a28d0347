"""How well boundaries agree within a tolerance: the boundary F1 of each class.

Csurka, Larlus, Perronnin, "What is a good evaluation measure for semantic segmentation?",
BMVC 2013. Here a boundary pixel of a class is a pixel of it that shares a side with a pixel of
another class; pixels that aren't compared, and what lies outside, are no other class. Distances
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

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class BoundaryPixels:
    """Boundary pixels of one class; can be added up over chunks.

    Attributes:
        truth: boundary pixels in the truth.
        truth_met: those of them within the tolerance of one in the prediction.
        prediction: boundary pixels in the prediction.
        prediction_met: those of them within the tolerance of one in the truth.
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
"""By class."""


def boundary_halo(tolerance: float) -> int:
    """Return how many px around a chunk its boundary counts depend on."""
    return math.floor(tolerance) + 1


def count_boundaries(
    truth: NDArray[Any], prediction: NDArray[Any], valid: Mask, core: Box, tolerance: float
) -> Boundaries:
    """Count the boundary pixels of a chunk.

    Args:
        truth: (h, w) classes of the chunk's core and `boundary_halo` px around it, fewer where
            the image ends.
        prediction: the same.
        valid: which of them are compared.
        core: the pixels that are counted, in the frame of the arrays.
        tolerance: px, at least 0.

    Returns:
        Counts of each class that has any.
    """
    found: Boundaries = {}
    inside = core.slices()
    for value in np.union1d(np.unique(truth), np.unique(prediction)).tolist():
        one = _boundary(truth == value, valid)
        two = _boundary(prediction == value, valid)
        if not (one.any() or two.any()):
            continue
        core_one, core_two = one[inside], two[inside]
        counts = BoundaryPixels(
            truth=int(core_one.sum()),
            truth_met=int((core_one & within(two, tolerance)[inside]).sum()),
            prediction=int(core_two.sum()),
            prediction_met=int((core_two & within(one, tolerance)[inside]).sum()),
        )
        if counts.truth or counts.prediction:
            found[int(value)] = counts
    return found


def merge_boundaries(parts: Iterable[Boundaries]) -> Boundaries:
    """Return the counts of several chunks together."""
    merged: Boundaries = {}
    for part in parts:
        for value, counts in part.items():
            merged[value] = merged.get(value, BoundaryPixels()) + counts
    return merged


def _boundary(mask: Mask, valid: Mask) -> Mask:
    """Return the pixels of a mask that share a side with a valid pixel that isn't in it."""
    other = valid & ~mask
    beside = np.zeros_like(mask)
    beside[1:] |= other[:-1]
    beside[:-1] |= other[1:]
    beside[:, 1:] |= other[:, :-1]
    beside[:, :-1] |= other[:, 1:]
    result: Mask = mask & valid & beside
    return result


def within(mask: Mask, distance: float) -> Mask:
    """Return the pixels at most `distance` px from one of the mask's."""
    if not mask.any():
        return mask
    result = np.zeros_like(mask)
    reach = math.floor(distance)
    rows = mask.shape[0]
    for dy in range(min(reach, rows - 1) + 1):
        across = math.isqrt(math.floor(distance * distance) - dy * dy)
        wide = _widened(mask, across)
        result[dy:] |= wide[: rows - dy]
        result[: rows - dy] |= wide[dy:]
    return result


def _widened(mask: Mask, across: int) -> Mask:
    """Return the pixels with one of the mask's in the same row, at most `across` px away."""
    columns = mask.shape[1]
    wide = mask.copy()
    for dx in range(1, min(across, columns - 1) + 1):
        wide[:, dx:] |= mask[:, : columns - dx]
        wide[:, : columns - dx] |= mask[:, dx:]
    return wide

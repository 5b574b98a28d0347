"""Counts of the pixels that each label of the truth shares with each label of the prediction.

All scores except those of boundaries follow from these counts. They are whole numbers, and chunks
may be counted in any order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LabelArray = NDArray[np.integer[Any]]
IntArray = NDArray[np.int64]

DENSE = 1 << 20
"""Entries up to which a full table of counts is laid out; for larger ones, pairs are sorted."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of labels that share pixels, each pair once, in order.

    Attributes:
        truth: (n,) labels of the truth.
        prediction: (n,) labels of the prediction.
        pixels: (n,) number of pixels that have both labels, at least 1.
    """

    truth: IntArray
    prediction: IntArray
    pixels: IntArray

    @classmethod
    def from_pairs(cls, truth: IntArray, prediction: IntArray, pixels: IntArray) -> Overlaps:
        """Sort pairs and add up equal ones."""
        order = np.lexsort((prediction, truth))
        truth, prediction, pixels = truth[order], prediction[order], pixels[order]
        first = np.ones(len(truth), np.bool_)
        first[1:] = (truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])
        starts = np.flatnonzero(first)
        sums = np.add.reduceat(pixels, starts) if len(starts) else pixels
        return cls(truth[starts], prediction[starts], sums)

    @property
    def total(self) -> int:
        """The number of pixels counted."""
        return int(self.pixels.sum())

    def select(self, kept: NDArray[np.bool_]) -> Overlaps:
        """Return the pairs for which `kept` (n,) is true."""
        return Overlaps(self.truth[kept], self.prediction[kept], self.pixels[kept])


def count_overlaps(
    truth: LabelArray, prediction: LabelArray, valid: NDArray[np.bool_] | None = None
) -> Overlaps:
    """Count the pairs of labels of two arrays of one shape.

    Args:
        truth: labels, at least 0.
        prediction: labels of the same pixels, at least 0.
        valid: which pixels count; all if None.

    >>> found = count_overlaps(np.array([0, 1, 1, 1]), np.array([0, 0, 7, 7]))
    >>> found.truth.tolist(), found.prediction.tolist(), found.pixels.tolist()
    ([0, 1, 1], [0, 0, 7], [1, 1, 2])
    """
    if valid is not None and not valid.all():
        truth, prediction = truth[valid], prediction[valid]
    truth, prediction = truth.ravel(), prediction.ravel()
    if not truth.size:
        return merge_overlaps([])
    rows, columns = int(truth.max()) + 1, int(prediction.max()) + 1
    if rows * columns <= max(DENSE, truth.size):
        pairs = truth.astype(np.int64) * columns + prediction
        table = np.bincount(pairs, minlength=rows * columns)
        occurring = np.flatnonzero(table)
        return Overlaps(occurring // columns, occurring % columns, table[occurring])
    in_truth, truth_index = np.unique(truth, return_inverse=True)
    in_prediction, prediction_index = np.unique(prediction, return_inverse=True)
    columns = len(in_prediction)
    pairs = truth_index.astype(np.int64) * columns + prediction_index
    occurring, pixels = np.unique(pairs, return_counts=True)
    return Overlaps(
        in_truth.astype(np.int64)[occurring // columns],
        in_prediction.astype(np.int64)[occurring % columns],
        pixels,
    )


def merge_overlaps(parts: Iterable[Overlaps]) -> Overlaps:
    """Add up the counts of several chunks, given in any order."""
    listed = list(parts)
    empty = np.zeros(0, np.int64)
    return Overlaps.from_pairs(
        np.concatenate([empty, *(part.truth for part in listed)]),
        np.concatenate([empty, *(part.prediction for part in listed)]),
        np.concatenate([empty, *(part.pixels for part in listed)]),
    )

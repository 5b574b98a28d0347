"""How many pixels each label of the truth shares with each label of the prediction.

All scores but the boundaries' follow from these counts, which are whole numbers and may be counted
chunk by chunk in any order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Counts = NDArray[np.int64]

DENSE = 1 << 20
"""Largest table of counts that is laid out in full rather than sorted for."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of labels that share pixels, each pair once, sorted.

    Attributes:
        truth: (n,) labels of the truth.
        prediction: (n,) labels of the prediction.
        pixels: (n,) how many pixels have both, at least 1.
    """

    truth: Counts
    prediction: Counts
    pixels: Counts

    @classmethod
    def of(cls, truth: Counts, prediction: Counts, pixels: Counts) -> Overlaps:
        """Return the same with equal pairs added up and all sorted."""
        order = np.lexsort((prediction, truth))
        truth, prediction, pixels = truth[order], prediction[order], pixels[order]
        first = np.ones(len(truth), np.bool_)
        first[1:] = (truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])
        begins = np.flatnonzero(first)
        sums = np.add.reduceat(pixels, begins) if len(begins) else pixels
        return cls(truth[begins], prediction[begins], sums)

    @property
    def total(self) -> int:
        """Number of pixels counted."""
        return int(self.pixels.sum())

    def select(self, kept: NDArray[np.bool_]) -> Overlaps:
        """Return the pairs for which `kept` (n,) is true."""
        return Overlaps(self.truth[kept], self.prediction[kept], self.pixels[kept])


def count_overlaps(
    truth: Labels, prediction: Labels, valid: NDArray[np.bool_] | None = None
) -> Overlaps:
    """Count the pairs of labels of two arrays of one shape.

    Args:
        truth: labels, at least 0.
        prediction: the same.
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
        there = np.flatnonzero(table)
        return Overlaps(there // columns, there % columns, table[there])
    ones, twos = np.unique(truth, return_inverse=True), np.unique(prediction, return_inverse=True)
    pairs = ones[1].astype(np.int64) * len(twos[0]) + twos[1]
    there, pixels = np.unique(pairs, return_counts=True)
    return Overlaps(
        ones[0].astype(np.int64)[there // len(twos[0])],
        twos[0].astype(np.int64)[there % len(twos[0])],
        pixels,
    )


def merge_overlaps(parts: Iterable[Overlaps]) -> Overlaps:
    """Return the counts of several chunks together, in whichever order they come."""
    some = list(parts)
    none = np.zeros(0, np.int64)
    return Overlaps.of(
        np.concatenate([none, *(part.truth for part in some)]),
        np.concatenate([none, *(part.prediction for part in some)]),
        np.concatenate([none, *(part.pixels for part in some)]),
    )

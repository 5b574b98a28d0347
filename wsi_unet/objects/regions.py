"""Numbered regions in a window: components of equal labels, with first pixel and bounding box."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.runs import Runs

COUNTED_AT_ONCE = 1 << 20
"""Pixels whose values are counted at once."""

Numbers = NDArray[np.int32]
"""(h, w): the number of each pixel's region, from 1; 0 for none."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions numbered 1 … n in a window; arrays have one row per region, in order of numbers.

    Attributes:
        runs: their pixels; each region has some.
        values: label values.
        first: (n, 2) the pixels (y, x) that identify them, px of the window: of components and
            their parts the first in raster order.
    """

    runs: Runs
    values: NDArray[np.uint8]
    first: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(n + 1,): where the runs of each region begin, and where the last ones end."""
        return self.runs.find_starts(len(self))

    @cached_property
    def boxes(self) -> NDArray[np.int64]:
        """(n, 4): bounding boxes (y0, x0, y1, x1), half open, px of the window."""
        runs, at, last = self.runs, self.starts[:-1], self.starts[1:] - 1
        left, right = np.minimum.reduceat(runs.x0, at), np.maximum.reduceat(runs.x1, at)
        return np.stack([runs.y[at], left, runs.y[last] + 1, right], axis=1)

    @cached_property
    def numbers(self) -> Numbers:
        """(h, w): the number of each pixel's region; drawn when it is first asked for."""
        return self.runs.draw()

    def select(self, kept: NDArray[np.bool_]) -> Regions:
        """Return the regions for which `kept` (n,) is true, numbered anew in the same order."""
        if kept.all():
            return self
        which, index = kept[self.runs.region], np.cumsum(kept) - 1
        runs = self.runs.select(which, index[self.runs.region[which]])
        return Regions(runs, self.values[kept], self.first[kept])


def label_components(labels: NDArray[np.uint8]) -> Regions:
    """Return the 8-connected components of equal labels (h, w); 0 is background."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    runs = Runs.find(labels)
    lower, upper = runs.find_touching()
    size = len(runs)
    edges = np.ones(len(lower), np.int8), upper, np.searchsorted(lower, np.arange(size + 1))
    component = np.zeros(0, np.int64)
    if size:
        graph = csr_array(edges, shape=(size, size))
        component = connected_components(graph, directed=False)[1].astype(np.int64)
    return describe_regions(Runs.sort(runs.shape, component, runs.y, runs.x0, runs.x1), labels)


def find_values(labels: NDArray[np.uint8]) -> list[int]:
    """Return the values that occur in labels, ascending, without 0."""
    highest = int(labels.max(initial=0))
    if highest <= 1:  # much quicker than to count
        return [highest] if highest else []
    counts, flat = np.zeros(256, np.int64), labels.ravel()
    for start in range(0, len(flat), COUNTED_AT_ONCE):  # which takes 8 bytes of each
        counts += np.bincount(flat[start : start + COUNTED_AT_ONCE], minlength=256)
    return (np.flatnonzero(counts[1:]) + 1).tolist()


def describe_regions(runs: Runs, labels: NDArray[np.uint8]) -> Regions:
    """Return the regions that consist of runs of labels (h, w), each of a single label."""
    at = np.flatnonzero(np.diff(runs.region, prepend=-1))
    first = np.stack([runs.y[at], runs.x0[at]], axis=1)
    return Regions(runs, labels[first[:, 0], first[:, 1]], first)

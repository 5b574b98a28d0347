"""Runs: rows of adjoining pixels of one region, which stand for all its pixels.

A nucleus has some 20 of them, so what is computed of runs takes a fraction of what it would take
of pixels, background included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.groups import spread


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of the pixels of regions in a window, as long as can be.

    They are in order of regions; those of one region are in raster order.

    Attributes:
        shape: (h, w) of the window, px.
        region: (r,) index of the region that each belongs to, from 0.
        y: (r,) its row, px of the window.
        x0: (r,) its first column.
        x1: (r,) the column after its last.
    """

    shape: tuple[int, int]
    region: NDArray[np.int64]
    y: NDArray[np.int64]
    x0: NDArray[np.int64]
    x1: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.region)

    @classmethod
    def find(cls, image: NDArray[Any]) -> Runs:
        """Return the runs of equal values above 0 in an image (h, w); value v is region v − 1."""
        height, width = image.shape
        begins = np.ones((height, width), np.bool_)
        np.not_equal(image[:, 1:], image[:, :-1], out=begins[:, 1:])
        start = np.flatnonzero(begins)
        value = image.ravel()[start]
        stop = np.append(start[1:], height * width)
        own = np.flatnonzero(value)
        y = start[own] // max(width, 1)
        x0, x1 = start[own] - y * width, stop[own] - y * width
        return cls.sort((height, width), value[own].astype(np.int64) - 1, y, x0, x1)

    @classmethod
    def sort(
        cls,
        shape: tuple[int, int],
        region: NDArray[np.int64],
        y: NDArray[np.int64],
        x0: NDArray[np.int64],
        x1: NDArray[np.int64],
    ) -> Runs:
        """Return runs that come in raster order."""
        order = sort_small(region)
        return cls(shape, region[order], y[order], x0[order], x1[order])

    def select(self, which: NDArray[np.bool_], region: NDArray[np.int64]) -> Runs:
        """Return the runs for which `which` (r,) is true; those are of other regions then.

        Args:
            which: (r,).
            region: index of the region of each that is kept; they ascend.
        """
        return Runs(self.shape, region, self.y[which], self.x0[which], self.x1[which])

    @classmethod
    def concatenate(cls, several: Sequence[Runs]) -> Runs:
        """Return all runs of several in one window; each has regions above those before it."""
        return cls(
            several[0].shape,
            *(
                np.concatenate([getattr(runs, name) for runs in several])
                for name in ("region", "y", "x0", "x1")
            ),
        )

    def take_regions(self, which: NDArray[np.int64], starts: NDArray[np.int64]) -> Runs:
        """Return the runs of some regions, which become regions 0, 1, … in the order given.

        Args:
            which: indices of the regions.
            starts: where the runs of each region begin, see `find_starts`.
        """
        counts = starts[which + 1] - starts[which]
        at = spread(starts[which], counts)
        region = np.repeat(np.arange(len(which)), counts)
        return Runs(self.shape, region, self.y[at], self.x0[at], self.x1[at])

    def number_anew(self) -> Runs:
        """Return the runs with indices of regions from 0, of which none is left out."""
        return replace(self, region=np.cumsum(np.diff(self.region, prepend=self.region[:1]) != 0))

    def shift(self, shape: tuple[int, int], shifts: NDArray[np.int64]) -> Runs:
        """Return the runs in another window, where regions lie elsewhere by `shifts` (n, 2), px."""
        dy, dx = shifts[self.region].T
        return Runs(shape, self.region, self.y + dy, self.x0 + dx, self.x1 + dx)

    def find_starts(self, total: int) -> NDArray[np.int64]:
        """Return where the runs of regions 0 … total − 1 begin, and where the last ones end."""
        return np.searchsorted(self.region, np.arange(total + 1))

    def find_pixels(self) -> NDArray[np.int64]:
        """Return the pixels, run by run: indices into the rows of the window, one after another."""
        return spread(self.y * self.shape[1] + self.x0, self.x1 - self.x0)

    def draw(self) -> NDArray[np.int32]:
        """Return the numbers (h, w) of the regions: their indices from 1, and 0 elsewhere."""
        height, width = self.shape
        start = self.y * width + self.x0
        order = np.argsort(start, kind="stable")
        edges = np.stack([start, start + self.x1 - self.x0], axis=1)[order]
        numbers = np.zeros(2 * len(self) + 1, np.int32)
        numbers[1::2] = self.region[order] + 1
        lengths = np.diff(edges.ravel(), prepend=0, append=height * width)
        drawn: NDArray[np.int32] = np.repeat(numbers, lengths).reshape(self.shape)
        return drawn

    def draw_row(self, y: int) -> NDArray[np.int32]:
        """Return the numbers (w,) in row `y`."""
        own = self.y == y
        shape = 1, self.shape[1]
        row = Runs(shape, self.region[own], 0 * self.y[own], self.x0[own], self.x1[own])
        drawn: NDArray[np.int32] = row.draw()[0]
        return drawn

    def draw_column(self, x: int) -> NDArray[np.int32]:
        """Return the numbers (h,) in column `x`."""
        own = (self.x0 <= x) & (x < self.x1)
        numbers = np.zeros(self.shape[0], np.int32)
        numbers[self.y[own]] = self.region[own] + 1
        return numbers

    def find_touching(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return pairs of runs (lower, upper) of one region that touch: in 8 directions.

        The upper run lies in the row above. Pairs are in order of their lower runs.
        """
        height, width = self.shape
        row = (self.region * (height + 1) + self.y) * (width + 1)
        start, stop = row + self.x0, row + self.x1
        first = np.searchsorted(stop, start - (width + 1))
        counts = np.searchsorted(start, stop - (width + 1), side="right") - first
        return np.repeat(np.arange(len(self)), counts), spread(first, counts)


def sort_small(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what sorts whole numbers from 0; equal ones stay in their order.

    numpy sorts numbers of 16 bits by counting, several times as quickly as longer ones.
    """
    order = np.argsort((values & 0xFFFF).astype(np.uint16), kind="stable")
    if values.max(initial=0) > 0xFFFF:
        order = order[np.argsort(values[order] >> 16, kind="stable")]
    return order

"""Sheets: components laid out anew, side by side with background between them.

Sheets are small, so that what is computed on them stays in the processor's caches, and hold little
but components. The order of the pixels inside each component stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.regions import Regions
from wsi_unet.objects.runs import Runs

WIDTH = 512
"""About how wide a sheet is, px, if no component is wider."""

PIXELS = 1 << 17
"""About how many pixels a sheet has, if no component has more."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """Some components on a sheet.

    Attributes:
        members: (n,) indices of the components among the regions that they are of, from 0.
        runs: their pixels on the sheet, of which the border is empty; regions are indices of
            `members`.
        shifts: (n, 2) how far (y, x) each was moved onto the sheet, px.
    """

    members: NDArray[np.int64]
    runs: Runs
    shifts: NDArray[np.int64]

    @classmethod
    def lay_out(cls, regions: Regions, members: NDArray[np.int64]) -> Sheet:
        """Lay out some regions (indices from 0) in rows of about `WIDTH` px."""
        y0, x0, y1, x1 = regions.boxes[members].T
        rows, columns = y1 - y0 + 1, x1 - x0 + 1  # and the background behind them
        left = np.cumsum(columns) - columns
        begins = np.flatnonzero(np.diff(left // WIDTH, prepend=-1))
        lengths = np.diff(begins, append=len(members))
        x = left - np.repeat(left[begins], lengths) + 1
        heights = np.maximum.reduceat(rows, begins)
        y = np.repeat(np.cumsum(heights) - heights, lengths) + 1
        shape = int(heights.sum()) + 1, int((x + columns).max())
        shifts = np.stack([y - y0, x - x0], axis=1)
        runs = regions.runs.take_regions(members, regions.starts).shift(shape, shifts)
        return cls(members, runs, shifts)

    def move_images(
        self, images: Sequence[NDArray[Any]], other: Sheet, which: NDArray[np.int64]
    ) -> list[NDArray[Any]]:
        """Return images of this sheet as images of another one, which has some of its components.

        Args:
            images: images (h, w) of this sheet.
            other: the other sheet.
            which: which of this one's components it has, in order.
        """
        if len(which) == len(self.members):
            return list(images)
        to = other.runs.find_pixels()
        starts = self.runs.find_starts(len(self.members))
        pixels = self.runs.take_regions(which, starts).find_pixels()
        moved = []
        for image in images:
            moved.append(np.zeros(other.runs.shape, image.dtype))
            moved[-1].ravel()[to] = image.ravel()[pixels]
        return moved

    def bring_back(self, runs: Runs, member: NDArray[np.int64], shape: tuple[int, int]) -> Runs:
        """Return runs on the sheet where they are in the window of the components.

        Args:
            runs: the runs.
            member: (n,) which component each of their n regions is of, as an index of `members`.
            shape: (h, w) of the window, px.
        """
        return runs.shift(shape, -self.shifts[member])


def lay_out(regions: Regions, chosen: NDArray[np.int64]) -> Iterator[Sheet]:
    """Yield sheets that hold the chosen regions (indices from 0), similar heights together."""
    sides = regions.boxes[chosen, 2:] - regions.boxes[chosen, :2] + 1
    order = np.argsort(sides[:, 0], kind="stable")
    full = (np.cumsum(sides[order].prod(axis=1)) - 1) // PIXELS
    for several in np.split(chosen[order], np.flatnonzero(np.diff(full)) + 1):
        yield Sheet.lay_out(regions, several)

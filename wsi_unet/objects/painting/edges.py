"""Objects as the vertical edges of their outlines, which paint any box of pixels exactly.

Along a row of pixels an object begins at an edge of its outline and ends at the next one, so its
number is added at the one and taken away at the other, and the sums from left to right are the
numbers of the pixels: objects don't overlap. Holes come out by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_unet.geometry import Box
from wsi_unet.labels.pyramid import Value
from wsi_unet.objects.groups import spread

BAND = 512
"""px: edges are cut into pieces at multiples of this, so that those of a few rows are found."""

AT_ONCE = 1 << 20
"""Pixels at edges that are worked on at once."""


@dataclass(frozen=True, eq=False)
class VerticalEdges:
    """The vertical edges of some objects, in pieces within bands of rows, from top to bottom.

    Attributes:
        bands: (p,) band of each piece.
        x: (p,) column to the right of the piece, px of the labels.
        y0: (p,) its first row.
        y1: (p,) the row after its last.
        owner: (p,) which object it belongs to.
        begins: (p,) whether the object lies to the right of it.
        right: (n,) the column after the last of each object.
    """

    bands: NDArray[np.int32]
    x: NDArray[np.int32]
    y0: NDArray[np.int32]
    y1: NDArray[np.int32]
    owner: NDArray[np.int32]
    begins: NDArray[np.bool_]
    right: NDArray[np.int32]

    @classmethod
    def parse(
        cls, outlines: Sequence[bytes], downsample: tuple[float, float], areas: NDArray[np.int64]
    ) -> VerticalEdges:
        """Return the edges of outlines that run along the edges of pixels.

        Args:
            outlines: (n,) WKB of polygons, x and y in px of the slide; outer rings run
                counterclockwise, holes clockwise (where y points up).
            downsample: (y, x) px of the slide per px of the labels.
            areas: (n,) number of pixels inside each.

        Raises:
            ValueError: an outline doesn't run along pixels, or has another area.
        """
        x, y, of_ring, object_of_ring = _find_corners(outlines, downsample)
        along = of_ring[1:] == of_ring[:-1]
        dx, dy = np.diff(x), np.diff(y)
        if (along & (dx != 0) & (dy != 0)).any():
            raise ValueError("an outline that doesn't run along pixels")
        vertical = np.flatnonzero(along & (dy != 0))
        owner, dy = object_of_ring[of_ring[vertical]], dy[vertical]
        found = np.zeros(len(areas), np.int64)
        np.add.at(found, owner, x[vertical] * dy)  # Green's theorem
        if not np.array_equal(found, areas):
            raise ValueError("an outline with another area than its object")
        right = np.zeros(len(areas), np.int32)
        np.maximum.at(right, owner, x[vertical].astype(np.int32))
        start = np.minimum(y[vertical], y[vertical + 1])
        return cls._cut(x[vertical], start, start + np.abs(dy), owner, dy < 0, right)

    @classmethod
    def _cut(
        cls,
        x: NDArray[np.int64],
        y0: NDArray[np.int64],
        y1: NDArray[np.int64],
        owner: NDArray[np.intp],
        begins: NDArray[np.bool_],
        right: NDArray[np.int32],
    ) -> VerticalEdges:
        first = y0 // BAND
        pieces = (y1 - 1) // BAND - first + 1
        of_edge, bands = np.repeat(np.arange(len(pieces)), pieces), spread(first, pieces)
        order = np.argsort(bands, kind="stable")
        of_edge, bands = of_edge[order], bands[order]
        return cls(
            bands.astype(np.int32),
            x[of_edge].astype(np.int32),
            np.maximum(y0[of_edge], bands * BAND).astype(np.int32),
            np.minimum(y1[of_edge], (bands + 1) * BAND).astype(np.int32),
            owner[of_edge].astype(np.int32),
            begins[of_edge],
            right,
        )

    def add(self, sums: NDArray[Value], box: Box, numbers: NDArray[Value]) -> None:
        """Add the objects' numbers where they begin in a box, and take them away where they end.

        Args:
            sums: (h, w) changed in place; sums wrap around.
            box: the box, px of the labels.
            numbers: (n,) the number of each object.
        """
        bands = np.arange(box.y0 // BAND, (box.y1 - 1) // BAND + 2)[[0, -1]]
        pieces = slice(*np.searchsorted(self.bands, bands).tolist())
        x, owner = self.x[pieces], self.owner[pieces]
        y0 = np.maximum(self.y0[pieces], box.y0) - box.y0
        y1 = np.minimum(self.y1[pieces], box.y1) - box.y0
        near = np.flatnonzero((y0 < y1) & (x < box.x1) & (self.right[owner] > box.x0))
        x, y0, y1 = x[near] - box.x0, y0[near], y1[near]
        steps = numbers[owner[near]]
        steps = np.where(self.begins[pieces][near], steps, np.negative(steps))
        before = x <= 0
        left = np.zeros(box.shape[0] + 1, sums.dtype)  # what lies left of the box, in one column
        np.add.at(left, y0[before], steps[before])
        np.subtract.at(left, y1[before], steps[before])
        sums[:, 0] += np.cumsum(left[:-1], dtype=sums.dtype)
        _add_columns(sums, x[~before], y0[~before], y1[~before], steps[~before])


def paint(sums: NDArray[Value]) -> NDArray[Value]:
    """Return the numbers of pixels, from what was added to a box; that is overwritten."""
    painted: NDArray[Value] = np.cumsum(sums, axis=1, dtype=sums.dtype, out=sums)
    return painted


def _find_corners(
    outlines: Sequence[bytes], downsample: tuple[float, float]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.intp], NDArray[np.intp]]:
    """Return the corners of outlines, (x, y) px of the labels, their rings, and those' objects."""
    polygons, of_polygon = shapely.get_parts(shapely.from_wkb(outlines), return_index=True)
    rings, of_ring = shapely.get_rings(polygons, return_index=True)
    points, index = shapely.get_coordinates(rings, return_index=True)
    factors = np.array(downsample[::-1])
    corners = np.rint(points / factors)
    if not (corners * factors == points).all():
        raise ValueError("an outline that doesn't run along pixels")
    x, y = corners.astype(np.int64).T
    return x, y, index, of_polygon[of_ring]


def _add_columns(
    sums: NDArray[Value],
    x: NDArray[np.int32],
    y0: NDArray[np.int32],
    y1: NDArray[np.int32],
    steps: NDArray[Value],
) -> None:
    """Add steps to columns `x`, from row `y0` to before row `y1`; `sums` is changed in place."""
    lengths, flat, width = (y1 - y0).astype(np.int64), sums.reshape(-1), sums.shape[1]
    at_once = np.cumsum(lengths) // AT_ONCE
    for number in range(int(at_once[-1]) + 1 if len(at_once) else 0):
        part = slice(*np.searchsorted(at_once, [number, number + 1]).tolist())
        rows = spread(y0[part].astype(np.int64), lengths[part])
        columns, own = np.repeat(x[part], lengths[part]), np.repeat(steps[part], lengths[part])
        np.add.at(flat, rows * width + columns, own)

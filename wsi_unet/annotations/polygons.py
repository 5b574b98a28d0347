"""Polygons as rings of points: their bounds, their area and the pixels inside them.

A pixel is inside a polygon if its centre is inside an odd number of the polygon's rings (the
even-odd rule). So holes are holes whichever way round they run. A ring that crosses itself, which
no standard allows, needs no repair: its lobes count as separate polygons. GEOS's
`make_valid` gives it the same area, unless it retraces its own edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box

Ring = NDArray[np.float64]
"""(n, 2) of (y, x); the last point may repeat the first."""
Polygon = tuple[Ring, ...]
"""An outer ring and its holes."""


def bounds(polygon: Sequence[Ring]) -> tuple[float, float, float, float]:
    """Return (y0, x0, y1, x1) of a polygon, in the unit of its points."""
    points = np.concatenate(polygon)
    (y0, x0), (y1, x1) = points.min(axis=0), points.max(axis=0)
    return float(y0), float(x0), float(y1), float(x1)


def area(polygon: Sequence[Ring]) -> float:
    """Return the area of a polygon: that of the outer ring less that of the holes.

    Exact only where no rings cross; elsewhere good enough to compare two polygons.

    >>> area((np.array([[0.0, 0.0], [0.0, 2.0], [3.0, 2.0], [3.0, 0.0]]),))
    6.0
    """
    sides = [abs(_signed_area(ring)) for ring in polygon]
    return max(0.0, sides[0] - sum(sides[1:]))


def _signed_area(ring: Ring) -> float:
    y, x = (ring - ring[0]).T
    return float(np.dot(y, np.roll(x, -1)) - np.dot(x, np.roll(y, -1))) / 2


def rasterise(polygon: Sequence[Ring], box: Box) -> tuple[Box, NDArray[np.bool_]] | None:
    """Find the pixels of a box whose centre lies in a polygon.

    Every edge switches all pixels to the right of where it crosses the line through a row's
    centres; a pixel that is switched an odd number of times is inside. Whether a pixel is inside
    doesn't depend on the box.

    Args:
        polygon: the outer ring and the holes, (y, x) in px; the centre of pixel (i, j) is
            (i + 1/2, j + 1/2).
        box: px.

    Returns:
        The part of the box that the polygon's bounding box covers, and (h, w) bool for it; None
        if they don't overlap.
    """
    y0, x0, y1, x1 = bounds(polygon)
    reach = Box(int(np.floor(y0)), int(np.floor(x0)), int(np.ceil(y1)) + 1, int(np.ceil(x1)) + 1)
    part = reach.intersection(box)
    if not part.area:
        return None
    rows, columns = part.shape
    switches = np.zeros((rows, columns + 1), np.int32)
    for ring in polygon:
        row, column = _crossings(ring, part.y0, part.y1)
        np.add.at(switches, (row - part.y0, np.clip(column, part.x0, part.x1) - part.x0), 1)
    odd = np.cumsum(switches[:, :-1], axis=1) & 1
    return part, odd.astype(np.bool_)


def _crossings(ring: Ring, top: int, bottom: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the row and the first pixel to the right of every crossing of an edge and a row."""
    start, stop = ring, np.roll(ring, -1, axis=0)
    # An edge crosses the centres y + 1/2 with min(y0, y1) <= y + 1/2 < max(y0, y1).
    first = np.clip(np.ceil(np.minimum(start[:, 0], stop[:, 0]) - 0.5), top, bottom).astype(np.intp)
    last = np.clip(np.ceil(np.maximum(start[:, 0], stop[:, 0]) - 0.5), top, bottom).astype(np.intp)
    count = last - first
    edge = np.repeat(np.arange(len(ring)), count)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (y0, x0), (y1, x1) = start[edge].T, stop[edge].T
    x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    return rows, np.ceil(x - 0.5).astype(np.intp)

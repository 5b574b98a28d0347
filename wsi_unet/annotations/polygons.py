"""Polygons as rings of points: filling them, their area, and whether a ring crosses itself.

A pixel is inside a polygon if its centre is inside an odd number of the polygon's rings (the
even-odd rule). So holes are holes whichever way they run, and a ring that crosses itself, which no
standard allows, is repaired without being changed: its lobes count as two polygons. That is the
area which GEOS's `make_valid` gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box

Ring = NDArray[np.float64]
"""(n, 2) of (y, x); the last point may repeat the first."""
Polygon = tuple[Ring, ...]
"""An outer ring and its holes."""

PAIRS_AT_ONCE = 1 << 20
"""Pairs of edges that are compared at once."""


def bounds(polygon: Sequence[Ring]) -> tuple[float, float, float, float]:
    """Return (y0, x0, y1, x1) of a polygon, in the unit of its points."""
    points = np.concatenate(polygon)
    (y0, x0), (y1, x1) = points.min(axis=0), points.max(axis=0)
    return float(y0), float(x0), float(y1), float(x1)


def area(polygon: Sequence[Ring]) -> float:
    """Return the area of a polygon whose rings don't cross: the outer ring's without the holes'.

    Where they do it is near enough to say which of two polygons is the smaller one.

    >>> area((np.array([[0.0, 0.0], [0.0, 2.0], [3.0, 2.0], [3.0, 0.0]]),))
    6.0
    """
    sides = [abs(_signed_area(ring)) for ring in polygon]
    return max(0.0, sides[0] - sum(sides[1:]))


def _signed_area(ring: Ring) -> float:
    y, x = (ring - ring[0]).T
    return float(np.dot(y, np.roll(x, -1)) - np.dot(x, np.roll(y, -1))) / 2


def inside(polygon: Sequence[Ring], box: Box) -> tuple[Box, NDArray[np.bool_]] | None:
    """Find the pixels of a box whose centre lies in a polygon.

    Every edge switches the pixels to the right of where it crosses the line through a row's
    centres; whoever is switched an odd number of times is inside. What a pixel is doesn't depend
    on the box.

    Args:
        polygon: its rings, (y, x) in px; the centre of pixel (i, j) is (i + 1/2, j + 1/2).
        box: px.

    Returns:
        The part of the box that was looked at, and its pixels (h, w); None if the polygon's
        bounding box lies elsewhere.
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
    """Return, for every row centre that an edge crosses, the row and the first pixel behind."""
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


def crosses_itself(ring: Ring) -> bool:
    """Whether a ring crosses, touches or retraces itself, so that no standard calls it valid."""
    points = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    if len(points) < 3:
        return True
    along = np.roll(points, -1, axis=0) - points
    before = np.roll(along, 1, axis=0)
    if ((_cross(before, along) == 0) & ((before * along).sum(axis=1) < 0)).any():
        return True
    return any(_any_meet(points, i, j) for i, j in _near_pairs(points))


def _near_pairs(points: Ring) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield pairs of edges, not neighbours, whose extents along one axis overlap."""
    ends = np.stack([points, np.roll(points, -1, axis=0)])
    orders = []
    for axis in (0, 1):
        low, high = ends[..., axis].min(axis=0), ends[..., axis].max(axis=0)
        order = np.argsort(low, kind="stable")
        after = np.arange(1, len(points) + 1)
        count = np.searchsorted(low[order], high[order], "right") - after
        orders.append((int(count.sum()), order, count))
    _, order, count = min(orders, key=lambda item: item[0])
    edges = len(points)
    start = 0
    while start < edges:
        total = np.cumsum(count[start:])
        stop = start + max(1, int(np.searchsorted(total, PAIRS_AT_ONCE, "right")))
        taken = count[start:stop]
        first = np.repeat(np.arange(start, stop), taken)
        ahead = np.arange(len(first)) - np.repeat(np.cumsum(taken) - taken, taken) + 1
        i, j = order[first], order[first + ahead]
        apart = np.abs(i - j)
        others = (apart != 1) & (apart != edges - 1)
        yield i[others], j[others]
        start = stop


def _any_meet(points: Ring, i: NDArray[np.intp], j: NDArray[np.intp]) -> bool:
    """Whether any edge i has a point in common with its edge j."""
    after = np.roll(points, -1, axis=0)
    a, b, c, d = points[i], after[i], points[j], after[j]
    apart = (np.maximum(a, b) < np.minimum(c, d)) | (np.maximum(c, d) < np.minimum(a, b))
    near = ~apart.any(axis=1)
    a, b, c, d = a[near], b[near], c[near], d[near]
    split = _sides(b - a, c - a, d - a) & _sides(d - c, a - c, b - c)
    return bool(split.any())


def _sides(along: Ring, one: Ring, other: Ring) -> NDArray[np.bool_]:
    """Whether two points don't lie on the same side of a line through the origin."""
    return np.sign(_cross(along, one)) * np.sign(_cross(along, other)) <= 0


def _cross(a: Ring, b: Ring) -> NDArray[np.float64]:
    product: NDArray[np.float64] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return product

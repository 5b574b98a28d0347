"""Points inside polygons, by the rule by which pixels are.

A point is inside a polygon if an odd number of its edges cross the point's row to the left of it or
in it; an edge's upper end belongs to it, the lower one doesn't. So a point on a left or upper edge
is inside, one on a right or lower edge isn't, and the centre of a pixel is inside exactly if the
pixel is (`drawing`, with the same arithmetic).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.drawing import Indices, PolygonEdges

PAIRS_AT_ONCE = 1 << 21
"""Pairs of an edge and a point that are looked at at once, unless a single edge has more."""

CLEAR = 1.0
"""px: what lies this far from all points is on one side of them, whatever is rounded."""


def find_containing(edges: PolygonEdges, points: NDArray[np.float64]) -> tuple[Indices, Indices]:
    """Find the polygons that contain points; quickest for points that lie close together.

    Args:
        edges: the polygons.
        points: (n, 2) of (y, x), px; polygons and points are in one frame.

    Returns:
        Indices of polygons and of points: a pair for each point inside a polygon, once.
    """
    order = np.argsort(points[:, 0], kind="stable")
    placed = points[order]
    rows = _Rows.find(edges, placed)
    polygons, inside = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for group in _group_polygons(edges.polygon, rows):
        begins = np.flatnonzero(np.diff(edges.polygon[group], prepend=-1))
        low = np.minimum.reduceat(rows.first[group], begins)
        # Every polygon has a place for each point in its rows, those of one after the other's.
        ends = np.cumsum(np.maximum.reduceat(rows.last[group], begins) - low)
        shifts = np.concatenate([[0], ends[:-1]]) - low
        own = np.repeat(shifts, np.diff(begins, append=group.stop - group.start))
        odd = _find_odd(edges, placed, rows, group, own, int(ends[-1]))
        which = np.searchsorted(ends, odd, "right")
        polygons.append(edges.polygon[group][begins][which])
        inside.append(order[odd - shifts[which]])
    return np.concatenate(polygons), np.concatenate(inside)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The points in the rows of each edge, of points in order of their rows.

    Attributes:
        first: (edges,) the first point.
        last: (edges,) the point after the last one.
        left: (edges,) whether the edge lies clearly to the left of all points.
        pairs: (edges,) number of points for which it must be found out whether it does.
    """

    first: Indices
    last: Indices
    left: NDArray[np.bool_]
    pairs: Indices

    @classmethod
    def find(cls, edges: PolygonEdges, placed: NDArray[np.float64]) -> _Rows:
        """Find the rows of edges among points (n, 2) in order of their rows."""
        (y0, x0), (y1, x1) = edges.start.T, edges.stop.T
        first = np.searchsorted(placed[:, 0], np.minimum(y0, y1))
        last = np.searchsorted(placed[:, 0], np.maximum(y0, y1))
        left = np.maximum(x0, x1) + CLEAR < placed[:, 1].min(initial=np.inf)
        right = np.minimum(x0, x1) - CLEAR > placed[:, 1].max(initial=-np.inf)
        return cls(first, last, left, np.where(left | right, 0, last - first))


def _find_odd(
    edges: PolygonEdges,
    placed: NDArray[np.float64],
    rows: _Rows,
    group: slice,
    own: Indices,
    places: int,
) -> Indices:
    """Return the places of points to whose left an odd number of edges of their polygon cross.

    Args:
        edges: the polygons.
        placed: (n, 2) the points in order of their rows.
        rows: the points in the rows of each edge.
        group: edges of some whole polygons.
        own: by how much a point's place for each edge's polygon differs from its index.
        places: number of places.
    """
    left = np.flatnonzero(rows.left[group])
    edge, shift = left + group.start, own[left]
    switches = np.bincount(rows.first[edge] + shift, minlength=places + 1)
    switches += np.bincount(rows.last[edge] + shift, minlength=places + 1)
    odd = np.cumsum(switches[:-1]) & 1
    for edge, point in _pair(group, rows):
        (y0, x0), (y1, x1) = edges.start[edge].T, edges.stop[edge].T
        y, x = placed[point].T
        crossing = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
        crossed = (point + own[edge - group.start])[crossing <= x]
        odd ^= np.bincount(crossed, minlength=places) & 1
    return np.flatnonzero(odd)


def _group_polygons(polygon: Indices, rows: _Rows) -> Iterator[slice]:
    """Yield the edges of some whole polygons, few enough to be looked at together.

    Args:
        polygon: (n,) index of each edge's polygon, ascending.
        rows: the points in the rows of each edge.
    """
    begins = np.flatnonzero(np.diff(polygon, prepend=-1))
    ends = np.append(begins[1:], len(polygon))
    # A polygon has at most as many places as its edges have points in their rows.
    sums = np.concatenate([[0], np.cumsum(rows.last - rows.first)])
    index = 0
    while index < len(begins):
        most = sums[begins[index]] + PAIRS_AT_ONCE
        after = max(index + 1, int(np.searchsorted(sums[ends], most, "right")))
        if sums[ends[after - 1]] > sums[begins[index]]:
            yield slice(int(begins[index]), int(ends[after - 1]))
        index = after


def _pair(group: slice, rows: _Rows) -> Iterator[tuple[Indices, Indices]]:
    """Yield pairs of an edge of a group and a point in its rows that must be looked at."""
    counts = rows.pairs[group]
    sums = np.concatenate([[0], np.cumsum(counts)])
    index = 0
    while index < len(counts):
        most = sums[index] + PAIRS_AT_ONCE
        after = max(index + 1, int(np.searchsorted(sums[1:], most, "right")))
        chosen = np.arange(group.start + index, group.start + after)
        edge = np.repeat(chosen, counts[index:after])
        skipped = np.repeat(sums[index:after] - sums[index], counts[index:after])
        yield edge, np.arange(len(edge)) - skipped + rows.first[edge]
        index = after

"""Outlines of objects along the edges of their pixels, as polygons with holes.

Outlines have their object on the right (y points down, so they run clockwise on a screen, and holes
the other way). Only the upright edges are looked at, those at the ends of runs of pixels: on each
line between two rows, in order from the left, every other of their ends begins a level edge, and
the next one ends it. So edges are linked to rings all at once.

Rings are 4-connected: where an object touches itself at a corner only, a ring ends; so none crosses
or touches itself, and polygons are valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.groups import take_groups
from wsi_unet.objects.outlines.hulls import find_hull_areas
from wsi_unet.objects.outlines.polygons import Polygons
from wsi_unet.objects.runs import Runs


@dataclass(frozen=True, eq=False)
class Edges:
    """Upright edges of pixels of several objects, one row each, of which each is 1 px long.

    Attributes:
        owner: index of the object.
        y: the pixel's row.
        x: the column of the vertices that it joins; that of a pixel's left edge is the pixel's.
        down: whether it runs down: is the right edge of a pixel. Left edges run up.
    """

    owner: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    down: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.owner)

    @classmethod
    def concatenate(cls, several: Sequence[Edges]) -> Edges:
        """Return all edges of several."""
        return cls(
            *(
                np.concatenate([getattr(edges, name) for edges in several])
                for name in ("owner", "y", "x", "down")
            )
        )

    @classmethod
    def of_runs(cls, runs: Runs) -> Edges:
        """Return the edges of regions; they are in order."""
        x = np.stack([runs.x0, runs.x1], axis=1).ravel()
        down = np.arange(len(x)) % 2 == 1
        return cls(np.repeat(runs.region, 2), np.repeat(runs.y, 2), x, down)

    def shift(self, dy: int, dx: int) -> Edges:
        """Return the edges moved by (dy, dx)."""
        return Edges(self.owner, self.y + dy, self.x + dx, self.down)

    def sort(self) -> Edges:
        """Return the edges in order: by owner, then row, then column."""
        order = np.lexsort((self.x, self.y, self.owner))
        return Edges(self.owner[order], self.y[order], self.x[order], self.down[order])


@dataclass(frozen=True, eq=False)
class _Links:
    """Level edges from an upright edge to the next one of its ring; they may have no length.

    They are in order of owners, then lines between rows, then columns.

    Attributes:
        arriving: the upright edge that ends where each begins.
        departing: the upright edge that begins where each ends.
    """

    arriving: NDArray[np.int64]
    departing: NDArray[np.int64]

    @classmethod
    def pair(cls, edges: Edges, ends: NDArray[np.int64]) -> _Links:
        """Link each two ends of edges, in order; see `_order_ends`."""
        arrives = np.concatenate([edges.down, ~edges.down])[ends[::2]]
        one, other = ends.reshape(-1, 2).T % len(edges)
        return cls(np.where(arrives, one, other), np.where(arrives, other, one))

    def follow(self) -> NDArray[np.int64]:
        """Return the link (m,) that follows each in its ring."""
        of_arriving = np.empty_like(self.arriving)
        of_arriving[self.arriving] = np.arange(len(of_arriving))
        return of_arriving[self.departing]


def trace_polygons(edges: Edges, total: int) -> Polygons:
    """Return the outlines of objects 0 … total − 1, vertices as (x, y).

    Args:
        edges: all edges of the objects, in order.
        total: number of objects; each has edges.
    """
    links = _link(edges)
    path, starts = _order_rings(links.follow())
    ring = np.empty(len(path), np.int64)  # of each upright edge
    ring[links.departing[path]] = np.repeat(
        np.arange(len(starts)), np.diff(starts, append=len(path))
    )
    heads = links.departing[path[starts]]
    # A ring begins at its first vertex, which outlines leave to the right, and holes downwards.
    hole = edges.x[heads] < edges.x[links.arriving[path[starts]]]
    points, sizes = _find_corners(edges, links, path, starts, hole)
    shell = np.arange(len(starts))
    # What is left of a hole's first edge is a run of its object: so is the edge where that begins.
    shell[hole] = ring[heads[hole] - 1]
    while hole[shell].any():
        shell = shell[shell]
    polygon = (np.cumsum(~hole) - 1)[shell]
    order = np.argsort(polygon, kind="stable")  # each outline before its holes
    return Polygons(
        points=points[take_groups(sizes, order)],
        ring_points=sizes[order],
        polygon_rings=np.bincount(polygon),
        object_polygons=np.bincount(edges.owner[heads[~hole]], minlength=total),
        hull_areas=_measure_hulls(edges),
    )


def _link(edges: Edges) -> _Links:
    """Link edges to rings."""
    ends, vertices = _order_ends(edges)
    links = _Links.pair(edges, ends)
    # Where two links meet at a vertex their object touches itself, and both turn right there.
    meeting = np.flatnonzero(vertices[1:-1:2] == vertices[2::2])
    if len(meeting):
        # If they are of one ring, it is cut in two by turning left instead.
        ring = _find_cycles(links.follow())
        cut = 2 * meeting[ring[meeting] == ring[meeting + 1]] + 1
        ends[cut], ends[cut + 1] = ends[cut + 1], ends[cut].copy()
        links = _Links.pair(edges, ends)
    return links


def _order_ends(edges: Edges) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ends of m edges by owner, line and column (2m,), and numbers of their vertices.

    End i is the lower one of edge i, end m + i its upper one. At a vertex, edges that run down come
    first, so that a level edge which begins at one of them doesn't end there.
    """
    height, width = int(edges.y.max()) + 2, int(edges.x.max()) + 1
    upper = 2 * ((edges.owner * height + edges.y) * width + edges.x) + ~edges.down
    keys = np.concatenate([upper + 2 * width, upper])
    ends = np.argsort(keys, kind="stable")  # merges what is in order already
    return ends, keys[ends] >> 1


def _find_corners(
    edges: Edges,
    links: _Links,
    path: NDArray[np.int64],
    starts: NDArray[np.int64],
    hole: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the vertices (v, 2) where rings turn, ring by ring, and how many each has (r,)."""
    arriving, departing = links.arriving[path], links.departing[path]
    x = np.stack([edges.x[arriving], edges.x[departing]], axis=1)
    turns = x[:, 0] != x[:, 1]
    sizes = 2 * np.add.reduceat(turns, starts, dtype=np.int64)
    y = edges.y[arriving] + edges.down[arriving]
    points = np.stack([x[turns].ravel(), np.repeat(y[turns], 2)], axis=1)
    # The first link of a hole ends at its first vertex.
    order = np.arange(len(points)) + np.repeat(hole, sizes)
    stops = np.cumsum(sizes)
    order[stops[hole] - 1] = (stops - sizes)[hole]
    return points[order], sizes


def _find_cycles(following: NDArray[np.int64]) -> NDArray[np.int32]:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    size = len(following)
    graph = csr_array((np.ones(size, np.int8), following, np.arange(size + 1)), (size, size))
    cycles: NDArray[np.int32] = connected_components(graph, directed=True, connection="weak")[1]
    return cycles


def _order_rings(following: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the links, ring by ring in order of their first links, and where each ring starts.

    The rings are cut before their first links and strung together, so that one walk passes all.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    size = len(following)
    cycles = _find_cycles(following)
    heads = np.empty(int(cycles.max()) + 1, np.int64)
    heads[cycles[::-1]] = np.arange(size)[::-1]  # of several assignments the last one stays
    heads.sort()
    preceding = np.empty(size, np.int64)
    preceding[following] = np.arange(size)
    onward = following.copy()
    onward[preceding[heads[:-1]]] = heads[1:]
    last = preceding[heads[-1]]
    onward[last] = last
    graph = csr_array((np.ones(size, np.int8), onward, np.arange(size + 1)), (size, size))
    path = breadth_first_order(graph, int(heads[0]), return_predecessors=False)
    position = np.empty(size, np.int64)
    position[path] = np.arange(size)
    return path.astype(np.int64), position[heads]


def _measure_hulls(edges: Edges) -> NDArray[np.float64]:
    """Return the areas (n,) of the convex hulls of objects, px²."""
    begins = np.diff(edges.y, prepend=-1) != 0
    begins |= np.diff(edges.owner, prepend=-1) != 0
    first = np.flatnonzero(begins)  # of each row of an object
    last = np.append(first[1:], len(edges)) - 1
    return find_hull_areas(edges.owner[first], edges.y[first], edges.x[first], edges.x[last])

"""Outlines of objects along the edges of their pixels, as polygons with holes.

An edge runs between two neighbouring vertices, with its object on the right (y points down, so
outlines run clockwise on a screen, and holes the other way). Edges are linked to rings all at once.
Rings are 4-connected: where an object touches itself at a corner only, a ring ends; so none crosses
or touches itself, and polygons are valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.regions import Numbers

STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)], np.int64)
"""(y, x) of the directions: 0 right, 1 down, 2 left, 3 up; the next is a turn to the right."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges of pixels of several objects, one row each.

    Attributes:
        owner: index of the object that lies on the right.
        y: the vertex that each begins at, row.
        x: its column.
        direction: index in `STEPS`.
    """

    owner: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    direction: NDArray[np.int64]

    @classmethod
    def concatenate(cls, several: Sequence[Edges]) -> Edges:
        """Return all edges of several."""
        return cls(
            *(
                np.concatenate([getattr(edges, name) for edges in several])
                for name in ("owner", "y", "x", "direction")
            )
        )

    def select(self, which: NDArray[np.int64]) -> Edges:
        """Return the edges with these indices, in their order."""
        return Edges(self.owner[which], self.y[which], self.x[which], self.direction[which])

    def shift(self, dy: int, dx: int) -> Edges:
        """Return the edges moved by (dy, dx)."""
        return Edges(self.owner, self.y + dy, self.x + dx, self.direction)


def find_edges(numbers: Numbers) -> Edges:
    """Return the edges between the pixels of `numbers` (h, w) and pixels of others, by owner.

    Vertex (y, x) is the top left corner of pixel (y, x); owners count from 0 for region 1. Edges of
    pixels on the border of `numbers` are found on their inner sides only.
    """
    found = []
    above, below = numbers[:-1], numbers[1:]
    y, x = _find(above != below)
    found += [_edges(below[y, x], y + 1, x, 0), _edges(above[y, x], y + 1, x + 1, 2)]
    left, right = numbers[:, :-1], numbers[:, 1:]
    y, x = _find(left != right)
    found += [_edges(left[y, x], y, x + 1, 1), _edges(right[y, x], y + 1, x + 1, 3)]
    return Edges.concatenate(found)


def _find(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Do as `np.nonzero`, in half the time."""
    flat = np.flatnonzero(mask)
    y = flat // mask.shape[1]
    return y, flat - y * mask.shape[1]


def _edges(
    numbers: NDArray[np.int32], y: NDArray[np.int64], x: NDArray[np.int64], direction: int
) -> Edges:
    own = numbers > 0
    owner = numbers[own].astype(np.int64) - 1
    return Edges(owner, y[own], x[own], np.full(len(owner), direction, np.int64))


def trace_polygons(edges: Edges, total: int) -> NDArray[Any]:
    """Return the outlines (total,) of objects as shapely polygons, vertices as (x, y).

    Args:
        edges: all edges of the objects 0 … total − 1, in any order.
        total: number of objects; each has edges.
    """
    import shapely

    order = np.argsort(_number_vertices(edges) * 4 + edges.direction)
    edges = edges.select(order)
    following = _link(edges)
    path, starts = _order_rings(following)
    edges = edges.select(path)
    y, x, direction = edges.y, edges.x, edges.direction
    lengths = np.diff(starts, append=len(path))
    before = np.arange(len(path)) - 1
    before[starts] = starts + lengths - 1
    corner = direction != direction[before]
    ring_of_edge = np.repeat(np.arange(len(starts)), lengths)
    ring = ring_of_edge[corner]
    points = np.stack([x[corner], y[corner]], axis=1)
    rings = shapely.linearrings(points, indices=ring)
    owner = edges.owner[starts]
    # Twice the area: outlines that run clockwise on a screen have a positive one.
    bounds = np.flatnonzero(np.diff(ring, prepend=-1))
    after = np.arange(len(ring)) + 1
    after[np.append(bounds[1:], len(ring)) - 1] = bounds
    cross = points[:, 0] * points[after, 1] - points[after, 0] * points[:, 1]
    area = np.add.reduceat(cross, bounds)
    outer, hole = np.flatnonzero(area > 0), np.flatnonzero(area < 0)
    first_outer = np.zeros(total, np.int64)
    first_outer[owner[outer][::-1]] = outer[::-1]
    shell = first_outer[owner[hole]]
    ambiguous = np.bincount(owner[outer], minlength=total)[owner[hole]] > 1
    if ambiguous.any():
        shell[ambiguous] = _find_shells(edges, ring_of_edge, area > 0)[hole[ambiguous]]
    return _assemble(rings, owner, outer, hole, shell, total)


def _number_vertices(edges: Edges) -> NDArray[np.int64]:
    """Return a number for each edge's owner and first vertex, in their order, row by row."""
    height, width = int(edges.y.max()) + 2, int(edges.x.max()) + 2
    return (edges.owner * height + edges.y) * width + edges.x


def _link(edges: Edges) -> NDArray[np.int64]:
    """Return the edge that follows each in its ring; edges are in order of owner and vertex."""
    key, width = _number_vertices(edges), int(edges.x.max()) + 2
    end = key + STEPS[edges.direction, 0] * width + STEPS[edges.direction, 1]
    following: NDArray[np.int64] = np.searchsorted(key, end)
    doubled = np.zeros(len(key), np.bool_)
    doubled[:-1] = key[:-1] == key[1:]
    saddle = np.flatnonzero(doubled[following])  # edges that end where two of the owner begin
    if not len(saddle):
        return following
    choice = following[saddle]
    turn_right = (edges.direction[saddle] + 1) % 4
    following[saddle] = choice + (edges.direction[choice] != turn_right)
    # Where both passes of a vertex are of one ring, it is cut in two by turning left instead.
    ring = _find_cycles(following)
    same = ring[choice] == ring[choice + 1]
    swapped = saddle[same]
    following[swapped] = 2 * choice[same] + 1 - following[swapped]
    return following


def _find_cycles(following: NDArray[np.int64]) -> NDArray[np.int32]:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    size = len(following)
    graph = csr_matrix((np.ones(size, np.int8), following, np.arange(size + 1)), (size, size))
    cycles: NDArray[np.int32] = connected_components(graph, directed=True, connection="weak")[1]
    return cycles


def _order_rings(following: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the edges, ring by ring in order of their first edges, and where each ring starts.

    The rings are cut before their first edges and strung together, so that one walk passes all.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import breadth_first_order

    size = len(following)
    _, heads = np.unique(_find_cycles(following), return_index=True)
    heads.sort()
    preceding = np.empty(size, np.int64)
    preceding[following] = np.arange(size)
    onward = following.copy()
    onward[preceding[heads[:-1]]] = heads[1:]
    last = preceding[heads[-1]]
    onward[last] = last
    graph = csr_matrix((np.ones(size, np.int8), onward, np.arange(size + 1)), (size, size))
    path = breadth_first_order(graph, int(heads[0]), return_predecessors=False)
    position = np.empty(size, np.int64)
    position[path] = np.arange(size)
    return path.astype(np.int64), position[heads]


def _assemble(
    rings: NDArray[Any],
    owner: NDArray[np.int64],
    outer: NDArray[np.int64],
    hole: NDArray[np.int64],
    shell: NDArray[np.int64],
    total: int,
) -> NDArray[Any]:
    """Return the polygon of each object from its rings.

    Args:
        rings: the rings.
        owner: the object of each ring.
        outer: the rings that are outlines.
        hole: the others.
        shell: the outline that each of them lies in.
        total: number of objects.
    """
    import shapely

    outers = np.bincount(owner[outer], minlength=total)
    shells_and_holes = np.concatenate([outer, hole])
    index = np.concatenate([outer, shell])
    order = np.argsort(index, kind="stable")  # each outline with its holes after it
    position = np.zeros(len(rings), np.int64)
    position[outer] = np.arange(len(outer))
    polygons = shapely.polygons(rings[shells_and_holes[order]], indices=position[index[order]])
    parts = owner[outer]
    single = outers[parts] == 1
    result = np.empty(total, object)
    result[parts[single]] = polygons[single]
    if not single.all():
        several, numbers = np.unique(parts[~single], return_inverse=True)
        order = np.argsort(numbers, kind="stable")
        result[several] = shapely.multipolygons(polygons[~single][order], indices=numbers[order])
    return result


def _find_shells(
    edges: Edges, ring: NDArray[np.int64], is_outer: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the outline that each ring lies in; of outlines themselves.

    To the left of a hole's first vertical edge, in raster order, lie pixels of its object, as far
    as the object's next vertical edge. That belongs to the outline around the hole, or to another
    hole in it which begins earlier.

    Args:
        edges: the edges of all rings.
        ring: the ring of each.
        is_outer: of each ring, whether it is an outline.
    """
    upright = np.flatnonzero(edges.direction % 2)
    row = edges.y[upright] - (edges.direction[upright] == 3)  # of the pixels on both sides
    order = np.lexsort((edges.x[upright], row, edges.owner[upright]))
    sorted_ring = ring[upright[order]]
    _, first = np.unique(sorted_ring, return_index=True)
    around = np.arange(len(is_outer))
    around[~is_outer] = sorted_ring[first[~is_outer] - 1]
    while not is_outer[around].all():
        around = around[around]
    return around

"""Outer outlines of objects, one ring each: what a DICOM polygon can be."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""(n, 2) corners, x and y; the first isn't repeated at the end."""


@dataclass(frozen=True)
class OuterRings:
    """The outer outlines of objects.

    Attributes:
        coordinates: (n, 2) corners of all rings, one after the other: x, y, px of the slide.
        corners: number of corners of each ring.
        with_holes: how many of the objects have holes, which outer outlines don't tell.
    """

    coordinates: NDArray[np.float64]
    corners: NDArray[np.int64]
    with_holes: int


def find_outer_rings(outlines: NDArray[Any]) -> OuterRings:
    """Return the outer outlines of objects.

    Parts of an object that touch at corners become one ring, which passes there twice. What lies in
    a hole, and touches its edge at corners, is inside the outer outline already.

    Args:
        outlines: shapely polygons and multipolygons.
    """
    parts, owner = shapely.get_parts(outlines, return_index=True)
    holes = np.bincount(owner, shapely.get_num_interior_rings(parts), len(outlines))
    exterior = shapely.get_exterior_ring(parts)
    closed = shapely.get_coordinates(exterior)
    counts = shapely.get_num_coordinates(exterior)
    ends = np.cumsum(counts)
    # The last point of every ring repeats its first.
    coordinates, corners = np.delete(closed, ends - 1, axis=0), counts - 1
    if len(parts) > len(outlines):
        coordinates, corners = _join(coordinates, corners, owner, len(outlines))
    return OuterRings(coordinates, corners, int(np.count_nonzero(holes)))


def _join(
    coordinates: NDArray[np.float64],
    corners: NDArray[np.int64],
    owner: NDArray[np.int64],
    objects: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return one ring per object, of rings in the order of their objects."""
    rings = np.split(coordinates, np.cumsum(corners)[:-1])
    first = np.searchsorted(owner, np.arange(objects + 1))
    joined = [
        rings[start] if stop - start == 1 else join_rings(rings[start:stop])
        for start, stop in pairwise(first.tolist())
    ]
    return np.concatenate(joined), np.array([len(ring) for ring in joined], np.int64)


def join_rings(rings: list[Ring]) -> Ring:
    """Return the ring along several that touch at corners, from the one of the largest area.

    Rings that don't touch it, not even through others, are left out: they lie in its holes.
    """
    paths = [[*map(tuple, ring.tolist())] for ring in rings]
    meetings: dict[tuple[float, ...], list[tuple[int, int]]] = {}
    for number, path in enumerate(paths):
        for place, corner in enumerate(path):
            meetings.setdefault(corner, []).append((number, place))
    largest = int(np.argmax([shapely.Polygon(ring).area for ring in rings]))
    joined: list[tuple[float, ...]] = []
    waiting, followed = [(largest, 0, 0)], {largest}
    while waiting:
        number, start, done = waiting.pop()
        path = paths[number]
        if done == len(path):
            continue
        corner = path[(start + done) % len(path)]
        others = [each for each in meetings[corner] if each[0] not in followed]
        if others:  # all around that ring first, and then on from this corner
            followed.add(others[0][0])
            waiting += [(number, start, done), (*others[0], 0)]
        else:
            joined.append(corner)
            waiting.append((number, start, done + 1))
    return np.array(joined, np.float64)

"""Polygons of many objects as a few arrays, and as well-known binary (WKB).

OGC 06-103r4, 8.2: https://www.ogc.org/standards/sfa. Geometry libraries make an object of each
polygon, which would take as long as finding the polygons does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.groups import sum_groups, take_groups

POLYGON, MULTIPOLYGON = 3, 6
"""The numbers of these types in WKB."""

_HEADER = np.dtype([("order", "u1"), ("type", "<u4"), ("count", "<u4")])
"""Of a polygon with its number of rings, or of a multipolygon with its number of polygons."""

_COUNT = np.dtype("<u4")
_POINT = np.dtype("V16")


@dataclass(frozen=True, eq=False)
class Polygons:
    """The polygons of n objects; several of one touch at corners only, or not at all.

    Attributes:
        points: (v, 2) the vertices (x, y) of all rings, px; the first isn't repeated at the end.
        ring_points: (r,) number of vertices of each ring.
        polygon_rings: (p,) number of rings of each polygon: its outline, then its holes.
        object_polygons: (n,) number of polygons of each object.
        hull_areas: (n,) area of each object's convex hull, px².
    """

    points: NDArray[Any]
    ring_points: NDArray[np.int64]
    polygon_rings: NDArray[np.int64]
    object_polygons: NDArray[np.int64]
    hull_areas: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.object_polygons)

    @classmethod
    def concatenate(cls, several: Sequence[Polygons]) -> Polygons:
        """Return the polygons of all objects of several."""
        return cls(
            *(
                np.concatenate([getattr(polygons, name) for polygons in several])
                for name in (
                    "points",
                    "ring_points",
                    "polygon_rings",
                    "object_polygons",
                    "hull_areas",
                )
            )
        )

    def take(self, objects: NDArray[np.int64]) -> Polygons:
        """Return the polygons of some objects, in another order."""
        if len(objects) == len(self) and (np.diff(objects) == 1).all():
            return self
        polygons = take_groups(self.object_polygons, objects)
        rings = take_groups(self.polygon_rings, polygons)
        points = take_groups(self.ring_points, rings)
        return Polygons(
            self.points[points],
            self.ring_points[rings],
            self.polygon_rings[polygons],
            self.object_polygons[objects],
            self.hull_areas[objects],
        )

    def move(self, shifts: NDArray[np.int64]) -> Polygons:
        """Return the polygons moved by `shifts` (n, 2), each (x, y)."""
        if not len(self):
            return self
        points = sum_groups(self.ring_points, self.polygon_rings)
        counts = sum_groups(points, self.object_polygons)
        return replace(self, points=self.points + np.repeat(shifts, counts, axis=0))

    def to_wkb(self, factors: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return them as little-endian WKB, one object after another, and where each begins.

        Args:
            factors: (2,) what x and y are multiplied by.

        The last of the beginnings (n + 1,) is the end of all. An object of one polygon is written
        as that, another one as a multipolygon.
        """
        if not len(self):
            return np.empty(0, np.uint8), np.zeros(1, np.int64)
        several = self.object_polygons > 1
        rings = _COUNT.itemsize + _POINT.itemsize * (self.ring_points + 1)
        polygons = _HEADER.itemsize + sum_groups(rings, self.polygon_rings)
        objects = _HEADER.itemsize * several + sum_groups(polygons, self.object_polygons)
        starts = np.append(0, np.cumsum(objects))
        # The headers of multipolygons and polygons up to that of each polygon.
        headers = np.repeat(np.cumsum(several), self.object_polygons) + np.arange(len(polygons)) + 1
        ring_at = np.cumsum(rings) - rings
        ring_at += _HEADER.itemsize * np.repeat(headers, self.polygon_rings)
        polygon_at = ring_at[np.cumsum(self.polygon_rings) - self.polygon_rings] - _HEADER.itemsize
        points = (self.points * factors).astype("<f8").view(_POINT)[:, 0]
        first = np.cumsum(self.ring_points) - self.ring_points
        point_at = np.repeat(ring_at + _COUNT.itemsize - _POINT.itemsize * first, self.ring_points)
        point_at += _POINT.itemsize * np.arange(len(points))
        buffer = np.empty(int(starts[-1]), np.uint8)
        _put(
            buffer, starts[:-1][several], _make_headers(MULTIPOLYGON, self.object_polygons[several])
        )
        _put(buffer, polygon_at, _make_headers(POLYGON, self.polygon_rings))
        _put(buffer, ring_at, (self.ring_points + 1).astype(_COUNT))
        _put(buffer, point_at, points)
        _put(buffer, ring_at + rings - _POINT.itemsize, points[first])  # again, to close the ring
        return buffer, starts


def _make_headers(kind: int, counts: NDArray[np.int64]) -> NDArray[Any]:
    headers = np.empty(len(counts), _HEADER)
    headers["order"], headers["type"], headers["count"] = 1, kind, counts
    return headers


def _put(buffer: NDArray[np.uint8], at: NDArray[np.int64], items: NDArray[Any]) -> None:
    """Write items into a buffer, each at a byte of its own."""
    if len(at):
        size = items.dtype.itemsize
        places = np.ndarray((len(buffer) - size + 1,), np.dtype(f"V{size}"), buffer, strides=(1,))
        places[at] = items.view(places.dtype)


NO_POLYGONS = Polygons(
    np.zeros((0, 2), np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.float64),
)

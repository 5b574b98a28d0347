"""Points in polygons, against exact arithmetic and against the pixels that are drawn."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsi_unet.annotations import points as points_module
from wsi_unet.annotations.drawing import PolygonEdges, draw_union
from wsi_unet.annotations.points import find_containing
from wsi_unet.annotations.polygons import Polygon
from wsi_unet.geometry import Box

HALVES = st.integers(-6, 30).map(lambda n: n / 2)
RINGS = st.lists(st.tuples(HALVES, HALVES), min_size=1, max_size=8).map(
    lambda points: np.array(points, np.float64)
)
POLYGONS = st.lists(st.lists(RINGS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=6)
QUARTERS = st.integers(-20, 80).map(lambda n: n / 4)
POINTS = st.lists(st.tuples(QUARTERS, QUARTERS), max_size=20)
SQUARE = np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 3.0], [3.0, 1.0]])


def is_inside(polygon: Polygon, y: float, x: float) -> bool:
    """Apply the rule with fractions: an edge's upper end and what lies on an edge count."""
    inside = False
    for ring in polygon:
        corners = [(Fraction(a), Fraction(b)) for a, b in ring.tolist()]
        for (y0, x0), (y1, x1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if min(y0, y1) <= Fraction(y) < max(y0, y1):
                crossing = x0 + (Fraction(y) - y0) * (x1 - x0) / (y1 - y0)
                inside ^= crossing <= Fraction(x)
    return inside


def pairs(polygons: list[Polygon], points: list[tuple[float, float]]) -> list[tuple[int, int]]:
    placed = np.array(points, np.float64).reshape(-1, 2)
    polygon, point = find_containing(PolygonEdges.from_polygons(polygons), placed)
    return list(zip(polygon.tolist(), point.tolist(), strict=True))


@settings(max_examples=200)
@given(POLYGONS, POINTS, st.sampled_from([1 << 21, 7, 1]))
@example([(SQUARE,)], [(2.0, 9.0), (1.0, 7.0), (3.0, 8.0)], 1)  # all far to the right
@example([(SQUARE,)], [(2.0, -9.0)], 1)
def test_points_are_where_exact_arithmetic_says(
    polygons: list[Polygon], points: list[tuple[float, float]], at_once: int
) -> None:
    expected = [
        (i, j)
        for i, polygon in enumerate(polygons)
        for j, (y, x) in enumerate(points)
        if is_inside(polygon, y, x)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points_module, "PAIRS_AT_ONCE", at_once)
        assert sorted(pairs(polygons, points)) == expected


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-3, 20), st.floats(-3, 20)), min_size=1, max_size=9),
    st.integers(0, 10),
    st.integers(0, 10),
)
def test_a_pixels_centre_is_inside_if_the_pixel_is(
    ring: list[tuple[float, float]], y: int, x: int
) -> None:
    box = Box(y, x, y + 8, x + 8)
    polygon = (np.array(ring),)
    drawn = draw_union(PolygonEdges.from_polygons([polygon]), box)
    centres = np.indices(box.shape).reshape(2, -1).T + np.array([y + 0.5, x + 0.5])
    found = np.zeros(box.area, np.bool_)
    found[[point for _, point in pairs([polygon], centres.tolist())]] = True
    assert (found.reshape(box.shape) == drawn).all()


def test_neighbours_share_no_point_of_their_common_edge() -> None:
    right = SQUARE + np.array([0.0, 2.0])
    below = SQUARE + np.array([2.0, 0.0])
    on_edges = [(2.0, 3.0), (3.0, 2.0), (1.0, 1.0), (3.0, 3.0)]
    assert pairs([(SQUARE,), (right,), (below,)], on_edges) == [(0, 2), (1, 0), (2, 1)]


def test_no_polygons_and_no_points_are_no_pairs() -> None:
    assert pairs([(SQUARE,)], []) == []
    assert pairs([], [(2.0, 2.0)]) == []

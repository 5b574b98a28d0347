from __future__ import annotations

from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.measure import points_in_poly

from wsi_unet.annotations.polygons import area, bounds, rasterise
from wsi_unet.geometry import Box

Points = NDArray[np.float64]

POINTS = st.lists(
    st.tuples(st.floats(-5, 25, width=16), st.floats(-5, 20, width=16)), min_size=3, max_size=9
)
GRID = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=8)


def filled(polygon: list[Points], box: Box) -> NDArray[np.bool_]:
    mask = np.zeros(box.shape, np.bool_)
    found = rasterise(polygon, box)
    if found is not None:
        mask[found[0].relative_to(box).slices()] = found[1]
    return mask


def distance_to_edges(points: NDArray[Any], ring: NDArray[Any]) -> Any:
    closest = np.full(len(points), np.inf)
    for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        along = b - a
        length = max(along @ along, 1e-12)
        t = np.clip((points - a) @ along / length, 0, 1)[:, None]
        closest = np.minimum(closest, np.linalg.norm(points - a - t * along, axis=1))
    return closest


@settings(max_examples=60)
@given(POINTS)
def test_a_pixel_is_inside_if_its_centre_is(points: list[tuple[float, float]]) -> None:
    """Against scikit-image's point-in-polygon test, away from the edges themselves."""
    ring = np.array(points)[:, ::-1] + 0.013
    centres: NDArray[Any] = np.indices((15, 20)).reshape(2, -1).T + 0.5
    found = np.asarray(points_in_poly(centres, ring))  # type: ignore[no-untyped-call]
    clear = distance_to_edges(centres, ring).reshape(15, 20) > 1e-6
    assert (filled([ring], Box(0, 0, 15, 20)) == found.reshape(15, 20))[clear].all()


@settings(max_examples=80)
@given(POINTS, st.integers(-6, 12), st.integers(-6, 12), st.integers(1, 9), st.integers(1, 9))
def test_a_pixel_doesnt_depend_on_the_box(
    points: list[tuple[float, float]], y: int, x: int, height: int, width: int
) -> None:
    ring = np.array(points)[:, ::-1] + 0.1  # 0.1 isn't a binary fraction, so rounding shows
    whole = Box(-9, -9, 30, 30)
    box = Box(y, x, y + height, x + width)
    part = filled([ring], whole)[box.relative_to(whole).slices()]
    assert (filled([ring], box) == part).all()


@settings(max_examples=60)
@given(GRID)
@example([(0, 0), (0, 1), (0, 0), (1, 0), (0, 1), (1, 0)])
def test_a_polygon_that_crosses_itself_has_the_area_that_geos_gives_it(
    points: list[tuple[int, int]],
) -> None:
    """By the even-odd rule; `make_valid` differs where a ring retraces its own edges."""
    ring = np.array(points, np.float64)
    if len({*points}) < 3:
        return
    triangles = [shapely.Polygon([ring[0], *pair]) for pair in pairwise(ring[1:])]
    expected = reduce(shapely.symmetric_difference, triangles)
    outline = shapely.LinearRing(ring)
    scale = 16  # its area as a number of pixels, the finer the nearer
    drawn = filled([ring * scale], Box(0, 0, 100, 100)).sum() / scale**2
    tolerance = outline.length / scale + 1e-9
    assert drawn == pytest.approx(expected.area, abs=tolerance)
    if shapely.unary_union(outline).length == pytest.approx(outline.length):
        valid = shapely.make_valid(shapely.Polygon(ring), method="linework")
        assert drawn == pytest.approx(valid.area, abs=tolerance)


def test_area_and_bounds_with_a_hole() -> None:
    outer = np.array([[0, 0], [0, 10], [8, 10], [8, 0], [0, 0]], np.float64)
    hole = np.array([[2, 2], [4, 2], [4, 5], [2, 5]], np.float64)
    assert area([outer, hole]) == 80 - 6
    assert area([hole[::-1]]) == 6
    assert bounds([outer, hole]) == (0, 0, 8, 10)
    assert filled([outer, hole], Box(0, 0, 20, 20)).sum() == 74


def test_elsewhere_is_nothing() -> None:
    square = np.array([[0, 0], [0, 4], [4, 4], [4, 0]], np.float64)
    assert rasterise([square], Box(10, 10, 20, 20)) is None

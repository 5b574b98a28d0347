"""Outlines, their WKB and hulls against shapely's, which joins the squares of pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from objects import shapes

from wsi_unet.objects.outlines import hulls
from wsi_unet.objects.outlines.polygons import Polygons
from wsi_unet.objects.outlines.tracing import Edges, trace_polygons
from wsi_unet.objects.regions import label_components
from wsi_unet.objects.runs import Runs

ONE = np.ones(2)


def trace(runs: Runs) -> Polygons:
    return trace_polygons(Edges.of_runs(runs), int(runs.region[-1]) + 1)


def decode(polygons: Polygons, factors: NDArray[np.float64] = ONE) -> tuple[list[bytes], object]:
    data, starts = polygons.to_wkb(factors)
    pieces = [data[start:stop].tobytes() for start, stop in pairwise(starts.tolist())]
    return pieces, shapely.from_wkb(pieces)


def join_squares(numbers: NDArray[np.int32]) -> list[shapely.Geometry]:
    found = []
    for number in range(1, int(numbers.max()) + 1):
        y, x = np.nonzero(numbers == number)
        joined = shapely.union_all(shapely.box(x, y, x + 1, y + 1))
        found.append(shapely.simplify(joined, 0))
    return found


masks = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 2)
)


@settings(max_examples=150, deadline=None)
@given(labels=masks.filter(np.any), whole=st.booleans())
def test_polygons_are_the_squares_of_pixels_joined(labels: shapes.Labels, whole: bool) -> None:
    """Also of objects that consist of several pieces, as those of large components may seem to."""
    regions = label_components(labels)
    runs = Runs.find((labels > 0).astype(np.int32)) if whole else regions.runs
    wkb, found = decode(trace(runs))
    assert shapely.is_valid(found).all()
    expected = join_squares(runs.draw())
    assert (shapely.normalize(found) == shapely.normalize(expected)).all()
    assert shapely.to_wkb(found, byte_order=1).tolist() == wkb
    rings = shapely.get_rings(found)
    for ring in rings:  # begin at their first vertex in raster order
        points = shapely.get_coordinates(ring)
        assert min(map(tuple, points[:, ::-1].tolist())) == tuple(points[0, ::-1].tolist())


@pytest.mark.parametrize("make", [shapes.rings, shapes.comb, shapes.touching_discs])
def test_taking_moving_and_scaling(make: object) -> None:
    labels: shapes.Labels = make(60)  # type: ignore[operator]
    polygons = trace(label_components(labels).runs)
    _, plain = decode(polygons)
    order = np.random.default_rng(0).permutation(len(polygons))
    both = Polygons.concatenate([polygons, polygons.take(order)])
    shifts = np.arange(2 * len(both)).reshape(-1, 2)
    _, found = decode(both.move(shifts), np.array([2.0, 0.5]))
    for number, which in enumerate([*range(len(order)), *order.tolist()]):
        moved = shapely.transform(plain[which], lambda p, n=number: (p + shifts[n]) * [2, 0.5])  # type: ignore[index]
        assert moved == found[number]  # type: ignore[index]
        assert both.hull_areas[number] == shapely.convex_hull(plain[which]).area  # type: ignore[index]


@settings(max_examples=150, deadline=None)
@given(
    sides=st.lists(
        st.lists(st.tuples(st.integers(-30, 30), st.integers(1, 30)), min_size=1, max_size=25),
        min_size=1,
        max_size=4,
    ),
    passes=st.sampled_from([0, 1, 32]),
)
def test_hulls(sides: list[list[tuple[int, int]]], passes: int) -> None:
    rows = [
        (owner, y, x, x + width)
        for owner, own in enumerate(sides)
        for y, (x, width) in enumerate(own)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hulls, "MOST_PASSES", passes)
        found = hulls.find_hull_areas(*np.array(rows, np.int64).T)
    for area, own in zip(found.tolist(), sides, strict=True):
        boxes = [shapely.box(x, y, x + width, y + 1) for y, (x, width) in enumerate(own)]
        assert area == shapely.convex_hull(shapely.union_all(boxes)).area


def test_hulls_of_long_hollow_sides_take_no_pass_per_row() -> None:
    y = np.arange(3000)
    left = (y - 1500) ** 2
    left[-1] = -(10**9)
    area = hulls.find_hull_areas(np.zeros_like(y), y, left, left + 1)
    points = shapely.multipoints(
        np.stack(
            [
                np.concatenate([left, left, left + 1, left + 1]),
                np.tile([0, 1], 2).repeat(3000) + np.tile(y, 4),
            ],
            1,
        )
    )
    assert area[0] == pytest.approx(shapely.convex_hull(points).area, rel=1e-12)

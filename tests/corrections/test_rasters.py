"""Outlines as runs of pixels, against drawing each object by itself."""

from __future__ import annotations

import numpy as np
import shapely
from annotations.test_drawing import POLYGONS, draw_one_by_one
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_unet.annotations.polygons import Polygon
from wsi_unet.corrections.rasters import (
    are_same,
    collect_edges,
    count_pixels,
    find_boxes,
    find_runs,
    parse_outlines,
)
from wsi_unet.geometry import Box
from wsi_unet.objects.runs import Runs

SHAPE = (17, 23)
OBJECTS = st.lists(POLYGONS, max_size=5)


def draw(objects: list[list[Polygon]]) -> Runs:
    return find_runs(*collect_edges(objects), SHAPE)


def draw_each(objects: list[list[Polygon]]) -> list[np.ndarray]:
    return [draw_one_by_one(polygons, Box.from_shape(SHAPE)) > 0 for polygons in objects]


@settings(max_examples=100, deadline=None)
@given(OBJECTS)
def test_runs_are_the_pixels_of_objects_as_long_as_can_be(objects: list[list[Polygon]]) -> None:
    runs, masks = draw(objects), draw_each(objects)
    for number, mask in enumerate(masks):
        expected = Runs.find(mask.astype(np.int32))
        own = runs.region == number
        for name in ("y", "x0", "x1"):
            assert getattr(runs, name)[own].tolist() == getattr(expected, name).tolist()
        if mask.any():
            y, x = np.nonzero(mask)
            box = [y.min(), x.min(), y.max() + 1, x.max() + 1]
            assert find_boxes(runs, len(objects))[number].tolist() == box
    assert count_pixels(runs, len(objects)).tolist() == [mask.sum() for mask in masks]


@settings(max_examples=100, deadline=None)
@given(OBJECTS, OBJECTS)
def test_objects_are_the_same_if_their_pixels_are(
    ones: list[list[Polygon]], others: list[list[Polygon]]
) -> None:
    total = min(len(ones), len(others))
    ones, others = [*ones[:total], *ones[:1]], [*others[:total], *ones[:1]]
    pairs = zip(draw_each(ones), draw_each(others), strict=True)
    expected = [bool((one == other).all()) for one, other in pairs]
    assert are_same(draw(ones), draw(others), len(ones)).tolist() == expected


def test_stored_outlines_are_read_whole() -> None:
    ring = shapely.box(0, 0, 6, 8)
    holed = ring.difference(shapely.box(2, 2, 4, 4))
    several = shapely.MultiPolygon([shapely.box(20, 0, 22, 2), shapely.box(30, 4, 40, 9)])
    found = parse_outlines([each.wkb for each in (ring, holed, several)], (2.0, 0.5))
    assert [[len(polygon) for polygon in each] for each in found] == [[1], [2], [1, 1]]
    assert found[2][1][0].max(axis=0).tolist() == [4.5, 80]
    assert parse_outlines([], (1.0, 1.0)) == []

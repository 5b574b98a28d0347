"""Many polygons at once, against drawing one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_unet.annotations import drawing
from wsi_unet.annotations.drawing import PolygonEdges, check_drawable, draw_numbers, draw_union
from wsi_unet.annotations.polygons import Polygon, rasterise
from wsi_unet.errors import AnnotationError
from wsi_unet.geometry import Box

COORDINATES = st.one_of(st.floats(-9, 40), st.integers(-3, 30).map(lambda n: n / 2))
RINGS = st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1, max_size=8).map(
    lambda points: np.array(points, np.float64)
)
POLYGONS = st.lists(st.lists(RINGS, min_size=1, max_size=3).map(tuple), max_size=7)
BOXES = st.tuples(*[st.integers(-4, 20)] * 2, *[st.integers(0, 24)] * 2).map(
    lambda t: Box(t[0], t[1], t[0] + t[2], t[1] + t[3])
)


def draw_one_by_one(polygons: list[Polygon], box: Box) -> np.ndarray:
    numbers = np.zeros(box.shape, np.int32)
    for number, polygon in enumerate(polygons, 1):
        found = rasterise(polygon, box)
        if found is not None:
            numbers[found[0].relative_to(box).slices()][found[1]] = number
    return numbers


@settings(max_examples=300, deadline=None)
@given(POLYGONS, BOXES, st.sampled_from([1 << 22, 40]), st.sampled_from([1 << 21, 30, 3]))
def test_all_at_once_is_one_by_one(
    polygons: list[Polygon], box: Box, pixels: int, crossings: int
) -> None:
    """However the rows are cut into bands, and however many polygons are looked at together."""
    expected = draw_one_by_one(polygons, box)
    edges = PolygonEdges.from_polygons(polygons)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "BAND_PIXELS", pixels)
        patch.setattr(drawing, "FIRST_CROSSINGS", crossings)
        patch.setattr(drawing, "MOST_CROSSINGS", crossings)
        assert (draw_numbers(edges, box) == expected).all()
        assert (draw_union(edges, box) == (expected > 0)).all()


@settings(max_examples=150, deadline=None)
@given(POLYGONS, BOXES, st.sampled_from([1 << 21, 30, 3]))
def test_the_intervals_of_each_are_its_pixels(
    polygons: list[Polygon], box: Box, crossings: int
) -> None:
    edges = PolygonEdges.from_polygons(polygons)
    drawn = np.zeros((len(polygons), *box.shape), np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "MOST_CROSSINGS", crossings)
        for spans in edges.find_spans(box):
            assert (np.diff(spans.polygon) >= 0).all()
            for n, row, begin, end in zip(
                spans.polygon, spans.row, spans.begin, spans.end, strict=True
            ):
                drawn[n, row, begin:end] += 1
    for own, polygon in zip(drawn, polygons, strict=True):
        assert (own == draw_one_by_one([polygon], box)).all()


@settings(max_examples=60, deadline=None)
@given(POLYGONS, st.sets(st.integers(0, 6)))
def test_some_polygons_keep_their_numbers(polygons: list[Polygon], chosen: set[int]) -> None:
    box = Box(0, 0, 20, 30)
    kept = sorted(number for number in chosen if number < len(polygons))
    nothing: Polygon = (np.zeros((1, 2)),)
    others = [p if number in kept else nothing for number, p in enumerate(polygons)]
    edges = PolygonEdges.from_polygons(polygons).take(np.array(kept, np.intp))
    assert (draw_numbers(edges, box) == draw_one_by_one(others, box)).all()


def test_crossings_are_counted_before_anything_is_drawn() -> None:
    square = np.array([[2.0, 3], [2, 90], [50, 90], [50, 3]])
    edges = PolygonEdges.from_polygons([(square,)] * 5)
    assert edges.count_crossings(Box(0, 0, 100, 100)) == 5 * 2 * 48
    assert edges.count_crossings(Box(49, 0, 100, 1)) == 5 * 2
    assert edges.count_crossings(Box(0, 0, 100, 100), side=40) == 5 * 2 * 48 * 3
    assert PolygonEdges.from_polygons([]).count_crossings(Box(0, 0, 9, 9)) == 0


def test_outlines_too_intricate_to_draw_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "FREE_CROSSINGS", 0)
    comb = np.array([[y, x] for x in range(30) for y in (0.0, 90.0)])
    edges, box = PolygonEdges.from_polygons([(comb,)]), Box(0, 0, 90, 90)
    assert edges.count_crossings(box) == 60 * 90
    with pytest.raises(
        AnnotationError, match=r"90 x 90 px looks at 5,400 .* more than 2,025; merge"
    ):
        check_drawable(Path("a.geojson"), edges, box)
    check_drawable(Path("a.geojson"), PolygonEdges.from_polygons([(comb[:20],)]), box)


def test_what_is_out_of_sight_isnt_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "FIRST_CROSSINGS", 400)
    looked: set[int] = set()
    find = PolygonEdges._find_spans

    def find_spans(edges: PolygonEdges, band: Box) -> drawing.Spans:
        looked.update(edges.polygon.tolist())
        return find(edges, band)

    monkeypatch.setattr(PolygonEdges, "_find_spans", find_spans)
    square = np.array([[5.0, 5], [5, 70], [70, 70], [70, 5]])
    beside = np.array([[72.0, 5], [72, 9], [75, 9]])
    edges = PolygonEdges.from_polygons([(square,)] * 20 + [(beside,)] + [(square,)] * 30)
    numbers = draw_numbers(edges, Box(0, 0, 80, 80))
    assert (numbers[5:70, 5:70] == 51).all()
    assert np.unique(numbers).tolist() == [0, 21, 51]
    assert draw_union(edges, Box(0, 0, 80, 80)).sum() == (numbers > 0).sum()
    assert looked == {20, 48, 49, 50}

"""Objects found by blocks against objects of the whole image."""

from __future__ import annotations

import math
from unittest.mock import Mock
from uuid import UUID, uuid5

import numpy as np
import pyarrow as pa
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from objects import oracle, shapes
from objects.shapes import Labels, find_by_blocks

from wsi_unet.geometry import BlockGrid
from wsi_unet.objects.faces import Faces
from wsi_unet.objects.finding import find_objects_of_block
from wsi_unet.objects.joining import join_faces
from wsi_unet.objects.rule import ClassRule
from wsi_unet.objects.search import LARGEST_BOX, Search

SPLIT = {1: ClassRule(split="distance", h=0.375), 2: ClassRule(split="distance", h=0.6)}
HEIGHTS = {1: 0.75, 2: 1.2}
"""The same in px, of 0.5 µm; no two distances differ by just that, so ties can't hide."""

SHAPES = [
    shapes.spiral, shapes.comb, shapes.rings, shapes.diagonals, shapes.corners, shapes.full,
    shapes.empty, shapes.touching_discs,
]  # fmt: skip


def check_against_whole(labels: Labels, table: pa.Table, whole: oracle.Whole) -> None:
    rows, expected = table.to_pylist(), oracle.measure(whole, 0.5)
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        for name, value in wanted.items():
            if value is None:
                continue
            if isinstance(value, float):
                # scikit-image takes square roots of differences that should be 0.
                near = math.isclose(row[name], value, rel_tol=1e-9, abs_tol=2e-6)
                half_turn = name == "orientation" and math.isclose(
                    abs(row[name] - value), math.pi, rel_tol=1e-9
                )
                assert near or half_turn, (name, row[name], value)
            else:
                assert row[name] == value, name
    outlines = shapely.from_wkb(table["geometry"].to_numpy())
    assert shapely.is_valid(outlines).all()
    assert shapely.area(outlines).tolist() == [row["area_px"] for row in expected]
    drawn = np.zeros(labels.shape, np.int32)
    if len(outlines):
        numbered = [(outline, number) for number, outline in enumerate(outlines, start=1)]
        drawn = rasterio.features.rasterize(numbered, labels.shape, dtype="int32")
    assert (drawn == whole.numbers).all()
    for row, (x0, y0, x1, y1) in zip(rows, shapely.bounds(outlines).tolist(), strict=True):
        assert row["bbox"] == {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}


@pytest.mark.parametrize("make", SHAPES)
@pytest.mark.parametrize("largest_box", [LARGEST_BOX, 900])
def test_shapes_over_many_blocks(make: object, largest_box: int) -> None:
    labels: Labels = make(120)  # type: ignore[operator]
    table = find_by_blocks(labels, 32, SPLIT, largest_box=largest_box)
    check_against_whole(labels, table, oracle.find(labels, HEIGHTS, largest_box))
    for side, margin in ((120, 0), (51, 0), (24, 200)):
        other = find_by_blocks(labels, side, SPLIT, largest_box=largest_box, margin=margin)
        assert other.equals(table)  # to the last bit


def test_one_object_with_thousands_of_holes_and_outlines() -> None:
    noise = np.random.default_rng(1).random((300, 300)) < 0.55
    labels = noise.astype(np.uint8)
    table = find_by_blocks(labels, 300, shapes.NO_RULES)
    check_against_whole(labels, table, oracle.find(labels, {}, LARGEST_BOX))
    assert find_by_blocks(labels, 64, shapes.NO_RULES).equals(table)


@st.composite
def images(draw: st.DrawFn) -> Labels:
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    labels = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 1, 1, 2])))
    factor = draw(st.sampled_from([1, 2, 5]))
    return labels.repeat(factor, 0).repeat(factor, 1)


def test_a_block_is_read_once_for_all_its_large_components() -> None:
    labels, grid = shapes.comb(64), BlockGrid((64, 64), 32)
    faces = {i: Faces.find(labels[grid.core(i).slices()], grid, i) for i in grid}
    owned = join_faces(grid, faces)[0, 0]
    assert len(owned) == 2
    pixels = Mock(wraps=shapes.InMemory(labels))
    rules = dict.fromkeys((1, 2), ClassRule())
    found = find_objects_of_block(pixels, Search(grid, rules, (1, 1), 900), (0, 0), owned)
    assert found.large.tolist() == [True, True]
    assert pixels.labels.call_count == 1 + len(grid)  # and once for what isn't large


@settings(max_examples=40, deadline=None)
@given(labels=images(), split=st.booleans(), largest_box=st.sampled_from([LARGEST_BOX, 60]))
def test_random_labels(labels: Labels, split: bool, largest_box: int) -> None:
    rules, heights = (SPLIT, HEIGHTS) if split else (shapes.NO_RULES, {})
    table = find_by_blocks(labels, 32, rules, largest_box=largest_box, margin=0)
    check_against_whole(labels, table, oracle.find(labels, heights, largest_box))
    assert find_by_blocks(labels, 11, rules, largest_box=largest_box, margin=3).equals(table)


def test_limits_drop_whole_objects() -> None:
    labels = shapes.touching_discs(100)
    everything = find_by_blocks(labels, 32).to_pylist()
    limited = {1: ClassRule(min_area=10, max_area=40), 2: ClassRule()}
    for side in (32, 100):
        kept = find_by_blocks(labels, side, limited).to_pylist()
        assert [row["id"] for row in kept] == [
            row["id"] for row in everything if row["label"] == 2 or 10 <= row["area_um2"] <= 40
        ]


def test_uuids_tell_rules_apart_but_not_limits() -> None:
    labels = shapes.full(20)

    def uuid(rule: ClassRule) -> str:
        return str(find_by_blocks(labels, 32, {1: rule, 2: rule})["uuid"][0])

    plain, split = ClassRule(), ClassRule(split="distance", h=1)
    name = '["f", "m", "one", "{\\"h\\": null, \\"split\\": \\"none\\"}"]/0'
    expected = str(uuid5(UUID("5f0f3c7e-3f0b-5c53-9d4f-6d8f0f5a7b11"), name))
    assert uuid(plain) == uuid(ClassRule(min_area=1)) == expected
    assert uuid(split) not in (uuid(plain), uuid(ClassRule(split="distance", h=2)))

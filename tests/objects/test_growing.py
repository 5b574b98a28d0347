"""Interiors grown into boundaries by blocks, against objects of the whole image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from objects import oracle, shapes
from objects.shapes import Labels, find_by_blocks
from objects.test_finding import check_against_whole
from scipy import ndimage

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.objects.faces import Faces
from wsi_unet.objects.finding import find_objects_of_block
from wsi_unet.objects.growing import Growth
from wsi_unet.objects.joining import join_faces
from wsi_unet.objects.rule import ClassRule
from wsi_unet.objects.search import LARGEST_BOX, Search
from wsi_unet.objects.table import make_table

PIXELS = [("1", "1"), ("1", "0.5"), ("0.5", "0.75"), ("0.1", "0.1"), ("0.25", "0.3")]
GROWTHS = ["0.1", "0.3", "0.5", "1", "1.25", "1.5", "2", "2.5", "5"]

Growths = dict[int, tuple[int, str]]


def make_rules(growths: Growths, values: tuple[int, ...] = (1, 2, 3, 4)) -> dict[int, ClassRule]:
    rules = dict.fromkeys(values, ClassRule())
    for value, (boundary, growth) in growths.items():
        rules[value] = ClassRule(
            split="interior", boundary=shapes.NAMES[boundary], growth=float(growth)
        )
    return rules


def find_whole(
    labels: Labels, growths: Growths, pixel: tuple[str, str], largest_box: int = LARGEST_BOX
) -> oracle.Whole:
    interiors = labels.copy()
    interiors[np.isin(labels, [boundary for boundary, _ in growths.values()])] = 0
    return oracle.grow(oracle.find(interiors, {}, largest_box), labels, growths, pixel)


def check_pixels(table: pa.Table, whole: oracle.Whole) -> None:
    """Check all that the size of a pixel doesn't change."""
    outlines = shapely.from_wkb(table["geometry"].to_numpy())
    drawn = np.zeros(whole.numbers.shape, np.int32)
    if len(outlines):
        numbered = [(outline, number) for number, outline in enumerate(outlines, start=1)]
        drawn = rasterio.features.rasterize(numbered, drawn.shape, dtype="int32")
    assert (drawn == whole.numbers).all()
    width = whole.numbers.shape[1]
    assert table["id"].to_pylist() == [y * width + x for y, x in whole.first]
    assert table["label"].to_pylist() == whole.values
    assert table["large"].to_pylist() == whole.large
    pixels = np.bincount(whole.numbers.ravel(), minlength=len(whole.values) + 1)[1:]
    assert table["area_px"].to_pylist() == pixels.tolist()


def surround(labels: Labels) -> Labels:
    """Return labels with boundaries in place of background, but for some of it."""
    found = labels.copy()
    found[labels == 0] = 3
    found[::11, ::7] = np.where(found[::11, ::7] == 3, 0, found[::11, ::7])
    return found


SHAPES = [
    shapes.spiral, shapes.comb, shapes.rings, shapes.diagonals, shapes.corners, shapes.full,
    shapes.empty, shapes.touching_discs, shapes.cells,
]  # fmt: skip


@pytest.mark.parametrize("make", SHAPES)
@pytest.mark.parametrize("largest_box", [LARGEST_BOX, 900])
def test_shapes_over_many_blocks(make: Callable[[int], Labels], largest_box: int) -> None:
    labels = surround(make(120))
    growths: Growths = {1: (3, "1.5"), 2: (3, "2.5")}
    rules = make_rules(growths)
    table = find_by_blocks(labels, 32, rules, largest_box=largest_box)
    whole = find_whole(labels, growths, ("0.5", "0.5"), largest_box)
    check_against_whole(labels, table, whole)
    for side, margin in ((120, 0), (51, 0), (24, 200)):
        other = find_by_blocks(labels, side, rules, largest_box=largest_box, margin=margin)
        assert other.equals(table)  # to the last bit


@st.composite
def images(draw: st.DrawFn) -> Labels:
    shape = draw(st.tuples(st.integers(1, 13), st.integers(1, 13)))
    elements = st.sampled_from([0, 1, 1, 2, 3, 3, 3, 3, 4])
    labels = draw(hnp.arrays(np.uint8, shape, elements=elements))
    factor = draw(st.sampled_from([1, 1, 2, 4]))
    return labels.repeat(factor, 0).repeat(factor, 1)


@settings(max_examples=60, deadline=None)
@given(
    labels=images(),
    pixel=st.sampled_from(PIXELS),
    growth=st.tuples(st.sampled_from(GROWTHS), st.sampled_from(GROWTHS)),
    other_boundary=st.booleans(),
    largest_box=st.sampled_from([LARGEST_BOX, LARGEST_BOX, 25]),
)
def test_random_labels(
    labels: Labels,
    pixel: tuple[str, str],
    growth: tuple[str, str],
    other_boundary: bool,
    largest_box: int,
) -> None:
    growths: Growths = {1: (3, growth[0]), 2: (4 if other_boundary else 3, growth[1])}
    rules = make_rules(growths)
    size = float(pixel[0]), float(pixel[1])
    table = find_by_blocks(labels, 32, rules, pixel=size, largest_box=largest_box, margin=0)
    check_pixels(table, find_whole(labels, growths, pixel, largest_box))
    for side, margin in ((7, 0), (11, 3)):
        other = find_by_blocks(
            labels, side, rules, pixel=size, largest_box=largest_box, margin=margin
        )
        assert other.equals(table)


@settings(max_examples=25, deadline=None)
@given(labels=images(), seed=st.integers(0, 99))
def test_objects_are_cut_where_they_grow_to_what_was_not_predicted(
    labels: Labels, seed: int
) -> None:
    predicted = np.random.default_rng(seed).random(labels.shape) < 0.9
    labels = np.where(predicted, labels, 0).astype(np.uint8)
    growths: Growths = {1: (3, "1"), 2: (3, "1.5")}
    whole = find_whole(labels, growths, ("0.5", "0.5"))
    beyond = ndimage.binary_dilation(np.pad(~predicted, 1, constant_values=True), oracle.EIGHT)
    expected = ndimage.maximum(beyond[1:-1, 1:-1], whole.numbers, range(1, len(whole.values) + 1))
    for side in (9, 64):
        table = find_by_blocks(labels, side, make_rules(growths), predicted=predicted, margin=2)
        check_pixels(table, whole)
        assert table["cut"].to_pylist() == np.atleast_1d(expected).tolist()


def image(*rows: str) -> Labels:
    return np.array([[int(c) for c in row.replace(".", "0")] for row in rows], np.uint8)


def numbers_of(labels: Labels, growths: Growths) -> NDArray[np.int32]:
    """Return which object each pixel is of, pixels of side 1, as block and oracle agree."""
    table = find_by_blocks(labels, 3, make_rules(growths), pixel=1.0, margin=0)
    whole = find_whole(labels, growths, ("1", "1"))
    check_pixels(table, whole)
    return whole.numbers.astype(np.int32)


def test_of_equally_near_interiors_that_with_the_first_nearest_pixel_takes_a_pixel() -> None:
    assert numbers_of(image("13331"), {1: (3, "2")}).tolist() == [[1, 1, 1, 2, 2]]
    # The right one is nearer by its first pixel in raster order, though the left begins above.
    labels = image("1....", "1.1..", "13...", "11111"[:1] + "....")
    assert numbers_of(labels, {1: (3, "1")})[2, 1] == 1
    labels = image("2..1", "2331", "2...")
    assert numbers_of(labels, {1: (3, "9"), 2: (3, "9")})[1].tolist() == [1, 1, 2, 2]


def test_what_only_another_object_would_connect_is_left_out() -> None:
    # The last boundary pixel is nearest to the first interior, but behind what isn't a boundary.
    labels = image("11..3", ".....")
    assert numbers_of(labels, {1: (3, "5")}).tolist() == [[1, 1, 0, 0, 0], [0] * 5]
    assert numbers_of(image("11333"), {1: (3, "2")}).tolist() == [[1, 1, 1, 1, 0]]


def test_a_diagonal_is_a_connection_but_longer() -> None:
    labels = image("1..", ".3.", "..3")
    assert numbers_of(labels, {1: (3, "1.41")}).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert numbers_of(labels, {1: (3, "1.42")}).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert numbers_of(labels, {1: (3, "3")}).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_the_nearest_interior_keeps_pixels_beyond_its_growth_from_others() -> None:
    labels = image("1.332")
    growths: Growths = {1: (3, "1"), 2: (3, "9")}
    assert numbers_of(labels, growths).tolist() == [[1, 0, 0, 2, 2]]


def test_an_object_keeps_the_identity_of_its_interior() -> None:
    labels = image("333", "313", "333")
    (row,) = find_by_blocks(labels, 2, make_rules({1: (3, "1.5")}), pixel=1.0).to_pylist()
    assert (row["id"], row["area_px"], row["y"], row["x"]) == (4, 9, 1.5, 1.5)


def test_area_limits_are_of_what_has_grown() -> None:
    labels = image("333..", "313.1", "333..")
    rules = make_rules({1: (3, "1.5")})
    rules[1] = rules[1].model_copy(update={"min_area": 5.0})
    assert find_by_blocks(labels, 2, rules, pixel=1.0)["area_px"].to_pylist() == [9]


def test_growth_means_decimals() -> None:
    assert Growth(3, 0.3).limit((0.1, 0.1)) == 9
    assert Growth(3, 0.7).limit((0.1, 0.1)) == 49
    assert Growth(3, 1.5).reach((0.5, 0.75)) == 3
    assert Growth(3, 0.2).reach((0.5, 0.5)) == 0


def test_a_part_depends_on_what_may_compete() -> None:
    rules = make_rules({1: (3, "4")})
    search = Search(BlockGrid((100, 100), 20), rules, (1.0, 0.5), boundaries={1: 3})
    assert search.halo == 16
    assert search.find_neighbours((0, 0), []) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    owned = [Box(15, 15, 25, 45)]
    expected = [(i, j) for i in range(3) for j in range(4)]
    assert search.find_neighbours((0, 0), owned) == expected
    plain = Search(BlockGrid((100, 100), 20), shapes.NO_RULES, (1.0, 0.5))
    assert plain.find_neighbours((0, 0), owned) == []


def find_parts(labels: Labels, search: Search) -> dict[BlockIndex, tuple[object, object]]:
    """Return the labels that each block's part depends on, and the part."""
    grid, pixels = search.grid, shapes.InMemory(labels)
    cores = {i: labels[grid.core(i).slices()] for i in grid}
    faces = {i: Faces.find(cores[i], grid, i).without(search.boundaries.values()) for i in grid}
    owned = join_faces(grid, faces)
    frame = shapes.make_frame(grid.shape[1], dict(search.rules), search.pixel_size)
    parts: dict[BlockIndex, tuple[object, object]] = {}
    for index in grid:
        mine = owned.get(index, [])
        near = search.find_neighbours(index, [each.box for each in mine])
        used = {index, *near, *(block for each in mine for block in each.blocks)}
        found = find_objects_of_block(pixels, search, index, mine)
        part = make_table(found, frame).to_pylist()
        parts[index] = {block: cores[block].tolist() for block in used}, part
    return parts


@settings(max_examples=60, deadline=None)
@given(labels=images(), changed=images(), seed=st.integers(0, 99))
def test_nothing_but_these_blocks_decides_a_part(
    labels: Labels, changed: Labels, seed: int
) -> None:
    rules, grid = make_rules({1: (3, "1"), 2: (3, "0.5")}), BlockGrid(labels.shape[:2], 5)
    search = Search(grid, rules, (0.5, 0.5), 30, 1, boundaries={1: 3, 2: 3})
    core = grid.core(list(grid)[seed % len(grid)])
    other = labels.copy()
    other[core.slices()] = np.resize(changed, core.shape)
    before, after = find_parts(labels, search), find_parts(other, search)
    for block in grid:
        if before[block][0] == after[block][0]:
            assert before[block][1] == after[block][1]

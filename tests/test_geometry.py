"""Integer geometry against brute force."""

from __future__ import annotations

import doctest
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_unet import geometry
from wsi_unet.geometry import BlockGrid, Border, Box, find_pixels, merge_boxes, reflect

sides = st.integers(1, 40)
places = st.integers(-30, 60)
boxes = st.builds(Box, places, places, places, places)


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(y, x) for y in range(box.y0, box.y1) for x in range(box.x0, box.x1)}


@given(boxes, boxes)
def test_boxes_are_sets_of_pixels(a: Box, b: Box) -> None:
    assert a.area == len(pixels(a))
    assert pixels(a.intersection(b)) == pixels(a) & pixels(b)
    assert a.contains(b) == (pixels(b) <= pixels(a))
    if a.area and b.area:
        assert pixels(a.union(b)) >= pixels(a) | pixels(b)


@given(st.lists(boxes, max_size=5), st.randoms(use_true_random=False))
def test_merged_boxes_are_one_form_of_their_pixels(parts: list[Box], random: Random) -> None:
    covered = set().union(*map(pixels, parts))
    merged = merge_boxes(parts)
    assert sum(box.area for box in merged) == len(covered)
    assert set().union(*map(pixels, merged)) == covered
    # However the same pixels are cut, and in whatever order.
    others = [tile for box in parts for tile in box.tiles(random.randint(1, 30))]
    random.shuffle(others)
    assert merge_boxes(others) == merged


@given(
    st.builds(Box, *[st.integers(0, 60)] * 4),
    st.sampled_from([0.5, 1.0, 2.0, 1.25, 4.0, 4.001953125, 7 / 3, 0.3]),
    st.sampled_from([1.0, 2.0, 3.9, 0.501953125]),
)
def test_pixels_of_a_region_have_their_centres_in_it(box: Box, fy: float, fx: float) -> None:
    found = find_pixels(box, (fy, fx))
    for factor, edges, range_found in (
        (fy, (box.y0, box.y1), range(found.y0, found.y1)),
        (fx, (box.x0, box.x1), range(found.x0, found.x1)),
    ):
        centres = [(pixel + Fraction(1, 2)) * Fraction(factor) for pixel in range(210)]
        inside = [pixel for pixel in range(210) if edges[0] <= centres[pixel] < edges[1]]
        assert list(range_found) == inside


@given(st.integers(0, 30), st.integers(0, 30), sides, sides, st.integers(1, 17))
def test_tiles_partition_a_box(y: int, x: int, rows: int, columns: int, side: int) -> None:
    box = Box(y, x, y + rows, x + columns)
    tiles = list(box.tiles(side))
    assert sum(tile.area for tile in tiles) == box.area
    assert set().union(*(pixels(tile) for tile in tiles)) == pixels(box)


@given(sides, sides, st.integers(1, 17))
def test_blocks_partition_a_raster(rows: int, columns: int, side: int) -> None:
    grid = BlockGrid((rows, columns), side)
    cores = [grid.core(index) for index in grid]
    assert len(cores) == len(grid)
    assert sum(core.area for core in cores) == rows * columns
    assert set().union(*map(pixels, cores)) == pixels(Box(0, 0, rows, columns))


@given(sides, sides, st.integers(1, 17), boxes)
def test_touching_blocks_are_those_that_share_pixels(
    rows: int, columns: int, side: int, box: Box
) -> None:
    grid = BlockGrid((rows, columns), side)
    expected = [index for index in grid if pixels(grid.core(index)) & pixels(box)]
    assert list(grid.touching(box)) == expected


def test_there_are_no_other_blocks() -> None:
    with pytest.raises(IndexError, match=r"no block \(2, 0\) in a grid of 2 x 1 blocks"):
        BlockGrid((5, 3), 3).core((2, 0))


@given(st.integers(1, 12), st.integers(-40, 40), st.integers(0, 60))
def test_reflect_is_numpys_reflect_however_far(size: int, start: int, length: int) -> None:
    stop = start + length
    before, after = max(0, -start), max(0, stop - size)
    padded = np.pad(np.arange(size), (before, after), mode="reflect" if size > 1 else "edge")
    expected = padded[start + before : stop + before]
    np.testing.assert_array_equal(reflect(start, stop, size), expected)


@given(st.integers(1, 5), sides, sides, st.data())
def test_clipped_windows_stay_on_the_grid_and_contain_their_core(
    depth: int, rows: int, columns: int, data: st.DataObject
) -> None:
    period = 2**depth
    border = Border(before=6 * period, after=6 * period, shrink=0, period=period, edge="clip")
    y = period * data.draw(st.integers(0, (rows - 1) // period))
    x = period * data.draw(st.integers(0, (columns - 1) // period))
    core = border.core(Box(y, x, rows, columns))
    window = border.window(core, (rows, columns))
    assert window.contains(core)
    assert window.y0 % period == window.x0 % period == 0
    assert window.shape[0] % period == window.shape[1] % period == 0
    assert border.core_in_output(core, window) == core.relative_to(window)


def test_a_valid_window_is_the_papers() -> None:
    """A 384 px core at the origin: input 572 from -92, output 388, the last 4 px dropped."""
    border = Border(before=92, after=96, shrink=92, period=16, edge="mirror")
    core = Box(0, 0, 384, 384)
    window = border.window(core, (10_000, 10_000))
    assert window == Box(-92, -92, 480, 480)
    assert border.core_in_output(core, window) == core


@pytest.mark.parametrize(
    "border",
    [
        {"before": -1, "after": 0, "shrink": 0, "period": 1, "edge": "mirror"},
        {"before": 5, "after": 8, "shrink": 0, "period": 4, "edge": "clip"},
        {"before": 4, "after": 4, "shrink": 4, "period": 4, "edge": "clip"},
    ],
)
def test_impossible_borders_are_refused(border: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"border|clipped"):
        Border(**border)  # type: ignore[arg-type]


def test_windows_of_one_size_stay_that_size_at_every_edge() -> None:
    border = Border(before=12, after=20, shrink=0, period=4, edge="mirror", tile=32)
    for box in Box.from_shape((70, 45)).tiles(64):
        for core in border.core(box).tiles(32):
            assert core.shape == (32, 32)
            assert border.window(core, (70, 45)).shape == (64, 64)
    for edge in ("clip", "cut"):
        with pytest.raises(ValueError, match="windows of one size can't be clipped"):
            Border(12, 20, 0, 4, edge, 32)
    with pytest.raises(ValueError, match="leave the grid"):
        Border(12, 20, 0, 4, "mirror", 30)


def test_only_clipped_windows_see_more_than_the_slide() -> None:
    assert Border(8, 8, 0, 8, "clip").full_shape((17, 24)) == (24, 24)
    assert Border(8, 8, 0, 8, "cut").full_shape((17, 24)) == (17, 24)


def test_the_examples_in_the_docs() -> None:
    result = doctest.testmod(geometry)
    assert result.attempted
    assert result.failed == 0

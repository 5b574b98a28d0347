from __future__ import annotations

import doctest
from collections import Counter

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_unet.geometry import Box
from wsi_unet.labels import metadata, pyramid
from wsi_unet.labels.pyramid import STRIP, Pyramid, reduce_mean, reduce_mode

sides = st.integers(1, 9)
few_labels = st.sampled_from([0, 1, 2, 3, 254, 255])


def squares(plane: NDArray[np.uint8]) -> list[list[list[int]]]:
    """Return the existing pixels of every 2 x 2 square."""
    rows, columns = plane.shape
    return [
        [plane[y : y + 2, x : x + 2].ravel().tolist() for x in range(0, columns, 2)]
        for y in range(0, rows, 2)
    ]


def mode(pixels: list[int]) -> int:
    counts = Counter(pixels)
    most = max(counts.values())
    tied = sorted(value for value, count in counts.items() if count == most)
    return next((value for value in tied if value), 0)


@given(npst.arrays(np.uint8, st.tuples(sides, sides), elements=few_labels))
@example(np.array([[0, 0], [0, 5]], np.uint8))
@example(np.array([[0, 0], [5, 5]], np.uint8))
@example(np.array([[0, 0], [5, 4]], np.uint8))
@example(np.array([[0, 1], [2, 255]], np.uint8))
def test_mode_is_the_brute_force_one(labels: NDArray[np.uint8]) -> None:
    expected = [[mode(pixels) for pixels in row] for row in squares(labels)]
    assert reduce_mode(labels).tolist() == expected


def test_mode_of_every_possible_square() -> None:
    values = [0, 1, 2, 3, 255]
    grids = np.array(np.meshgrid(*[values] * 4)).reshape(4, -1).T.astype(np.uint8)
    labels = grids.reshape(-1, 2, 2).transpose(1, 0, 2).reshape(2, -1)
    assert reduce_mode(labels).tolist() == [[mode(row.tolist()) for row in grids]]


@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 3), sides, sides)))
def test_mean_is_the_brute_force_one(channels: NDArray[np.uint8]) -> None:
    expected = [
        [[int(np.floor(np.mean(pixels) + 0.5)) for pixels in row] for row in squares(channel)]
        for channel in channels
    ]
    assert reduce_mean(channels).tolist() == expected


@pytest.mark.parametrize("shape", [(2 * STRIP + 1, 5), (STRIP, 6), (STRIP - 1, 1)])
def test_strips_leave_no_seam(shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 4, shape, np.uint8)
    before = labels.copy()
    expected = [[mode(pixels) for pixels in row] for row in squares(labels)]
    assert reduce_mode(labels).tolist() == expected
    assert np.array_equal(reduce_mode(np.asfortranarray(labels)), reduce_mode(labels))
    assert np.array_equal(labels, before)


@settings(max_examples=30)
@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.sampled_from([512, 1024, 4096]))
def test_levels_halve_and_task_shards_share_the_block_grid(
    shape: tuple[int, int], block: int
) -> None:
    levels = Pyramid(shape, block)
    assert max(levels.level_shape(levels.levels - 1)) <= 512
    assert levels.levels == 1 or max(levels.level_shape(levels.levels - 2)) > 512
    rows, columns = shape
    for level in range(levels.levels):
        assert levels.level_shape(level) == (rows, columns)
        rows, columns = -(-rows // 2), -(-columns // 2)
        if level < levels.task_levels:
            assert levels.level_grid(level).size == levels.grid.size
        else:
            assert levels.shard_side(level) == 2048
    assert levels.shard_side(levels.task_levels - 1) >= 512


def test_task_levels_end_at_shards_of_one_chunk() -> None:
    levels = Pyramid((100_000, 80_000), 4096)
    assert levels.levels == 9
    assert levels.task_levels == 4
    assert [levels.shard_side(level) for level in range(6)] == [4096, 2048, 1024, 512, 2048, 2048]


def test_given_levels_may_shrink_to_one_pixel() -> None:
    levels = Pyramid((5, 300), 512, 11)
    assert [levels.level_shape(level) for level in (8, 9, 10)] == [(1, 2), (1, 1), (1, 1)]


def test_blocks_reduce_as_the_whole_does() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (1101, 1030), np.uint8)
    levels = Pyramid((1101, 1030), 512)
    whole = reduce_mode(labels)
    for index in levels.grid:
        core = levels.grid.core(index)
        half = Box(core.y0 // 2, core.x0 // 2, -(-core.y1 // 2), -(-core.x1 // 2))
        assert np.array_equal(reduce_mode(labels[core.slices()]), whole[half.slices()])


@pytest.mark.parametrize("block", [0, 500, 511, 1536, -512])
def test_odd_blocks_are_refused(block: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Pyramid((100, 100), block)


def test_an_empty_pyramid_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        Pyramid((0, 3), 512)
    with pytest.raises(ValueError, match="-1 levels"):
        Pyramid((3, 3), 512, -1)


def test_the_examples_in_the_docs() -> None:
    for module in (pyramid, metadata):
        result = doctest.testmod(module, extraglobs={"np": np})
        assert result.failed == 0
        assert result.attempted

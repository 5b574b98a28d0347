"""The shapes of a pyramid's levels, and the reduction of one level to the next. No I/O.

A level is half its predecessor, rounded up. Both reductions look at 2 x 2 pixels, so all pyramids
(labels, probabilities, image) share the same half-pixel translation; at an odd edge they use the
pixels that exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Shape

CHUNK = 512
"""Side of an inner chunk, px, on every level: some viewers want one tile size throughout."""

TAIL_SHARD = 2048
"""Side of a shard of the tail, the levels that no block task writes, px."""

LONGEST_SIDE = 1 << 26
"""The longest side of an array, px: 17 m at 0.25 µm per pixel."""

MOST_LEVELS = 32

LONGEST_BLOCK = 1 << 16
"""The longest side of a block or shard, px; one such block is 4 Gpx."""

MOST_BLOCKS = 1 << 21
"""The most blocks of an array: 8.8 Tpx in blocks of 2048 px. All of them are listed in memory."""

STRIP = 128
"""Rows reduced at a time: the intermediate arrays of 4096 columns then stay in the CPU's cache."""

Pixels = NDArray[np.uint8]
Value = TypeVar("Value", bound=np.unsignedinteger[Any])
"""Type of pixels: uint8, or uint32 where they are numbers of objects."""

Reduce = Callable[[NDArray[Value]], NDArray[Value]]

UINT8 = np.dtype(np.uint8)
UINT32 = np.dtype("<u4")


def is_block_side(side: int) -> bool:
    """Return whether a block may have this side: `CHUNK` px times a power of two.

    >>> is_block_side(2048), is_block_side(1536), is_block_side(0)
    (True, False, False)
    """
    factor, rest = divmod(side, CHUNK)
    return rest == 0 and factor > 0 and factor & (factor - 1) == 0


@dataclass(frozen=True)
class Pyramid:
    """The levels of one array, and the grids of their shards.

    Attributes:
        shape: (rows, columns) of level 0, px.
        block: side of a block, px: 512 times a power of two. One block is one shard of level 0.
        levels: number of levels; 0 (the default) is replaced by `count_levels(shape)`. Levels may
            shrink to a single pixel, since all arrays of an output have as many.
    """

    shape: Shape
    block: int
    levels: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(f"a pyramid needs at least one pixel, got shape {self.shape}")
        if not is_block_side(self.block):
            raise ValueError(
                f"block side {self.block} px is not {CHUNK} times a power of two "
                f"({CHUNK}, {2 * CHUNK}, {4 * CHUNK}, …)"
            )
        if self.levels < 0:
            raise ValueError(f"a pyramid can't have {self.levels} levels")
        if self.levels == 0:
            object.__setattr__(self, "levels", self.count_levels(self.shape))

    @staticmethod
    def count_levels(shape: Shape) -> int:
        """Return the number of levels until the longer side fits into one chunk.

        >>> Pyramid.count_levels((513, 40)), Pyramid.count_levels((512, 1))
        (2, 1)
        """
        return max(0, (max(shape) - 1) // CHUNK).bit_length() + 1

    @property
    def grid(self) -> BlockGrid:
        """The blocks of level 0."""
        return BlockGrid(self.shape, self.block)

    @property
    def task_levels(self) -> int:
        """Number of levels that the task of a block writes; the others are the tail."""
        return min((self.block // CHUNK).bit_length(), self.levels)

    def level_shape(self, level: int) -> Shape:
        """Return (rows, columns) of a level, px of that level."""
        rows, columns = self.shape
        return -(-rows // (1 << level)), -(-columns // (1 << level))

    def shard_side(self, level: int) -> int:
        """Return the side of the shards of a level, px of that level."""
        return self.block >> level if level < self.task_levels else TAIL_SHARD

    def level_grid(self, level: int) -> BlockGrid:
        """Return the grid of a level's shards. On task levels a block's shards have its index."""
        return BlockGrid(self.level_shape(level), self.shard_side(level))


def shard_key(group: str, level: int, index: BlockIndex, channels: bool) -> str:
    """Return the key of a shard of a (y, x) array, or with `channels` of a (c, y, x) array.

    >>> shard_key("labels/nuclei", 0, (3, 4), False), shard_key("", 1, (0, 2), True)
    ('labels/nuclei/0/c/3/4', '1/c/0/0/2')
    """
    start = f"{group}/{level}" if group else str(level)
    return f"{start}/c/{'0/' if channels else ''}{index[0]}/{index[1]}"


def reduce_mode(labels: NDArray[Value]) -> NDArray[Value]:
    """Return labels at half the size: the most frequent label of each 2 x 2 pixels.

    Background (0) doesn't win a tie; of other labels the lowest wins it.

    >>> reduce_mode(np.array([[0, 0, 2, 1], [3, 3, 3, 0]], np.uint8)).tolist()
    [[3, 1]]

    Args:
        labels: (rows, columns), of an unsigned type.

    Returns:
        (ceil(rows / 2), ceil(columns / 2)), of the same type.
    """
    if not labels.any():
        return np.zeros([-(-side // 2) for side in labels.shape], labels.dtype)
    return _reduce_in_strips(labels, _mode_of_pairs)


def reduce_mean(channels: Pixels) -> Pixels:
    """Return intensities at half the size: the mean of each 2 x 2 pixels, halves rounded up.

    >>> reduce_mean(np.array([[[0, 1, 9], [1, 0, 9]]], np.uint8)).tolist()
    [[[1, 9]]]

    Args:
        channels: uint8 (channels, rows, columns).

    Returns:
        uint8 (channels, ceil(rows / 2), ceil(columns / 2)).
    """
    return np.stack([_reduce_in_strips(channel, _mean_of_pairs) for channel in channels])


def _reduce_in_strips(
    plane: NDArray[Value], reduce_pairs: Callable[[NDArray[Value], NDArray[Value]], NDArray[Value]]
) -> NDArray[Value]:
    """Apply `reduce_pairs` to the even and odd rows of (rows, columns), a few rows at a time.

    An odd edge is repeated, which leaves both the mode and the mean of what exists unchanged.
    """
    rows, columns = plane.shape
    if rows % 2 or columns % 2:
        plane = np.pad(plane, ((0, rows % 2), (0, columns % 2)), mode="edge")
    plane = np.ascontiguousarray(plane)
    reduced = np.empty((plane.shape[0] // 2, plane.shape[1] // 2), plane.dtype)
    for row in range(0, plane.shape[0], STRIP):
        strip = plane[row : row + STRIP]
        reduced[row // 2 : (row + STRIP) // 2] = reduce_pairs(strip[::2], strip[1::2])
    return reduced


def _mode_of_pairs(upper: NDArray[Value], lower: NDArray[Value]) -> NDArray[Value]:
    """Return the mode of 2 x 2 pixels, given as two planes (rows, 2 * columns).

    Labels are shifted down by one, so background becomes the largest value and "the lowest wins a
    tie" is the whole rule. Sorted as s0 <= s1 <= s2 <= s3, the mode is s1 where it equals a
    neighbour, else s2 where it equals s3, else (all differ) s0. Everything is min, max and bit
    masks: in uint8 several times faster than `np.where` and strided slices.
    """
    step = upper.dtype.type(1)
    upper, lower = upper - step, lower - step  # wraps around on purpose
    left_low, right_low = _split_columns(np.minimum(upper, lower))
    left_high, right_high = _split_columns(np.maximum(upper, lower))
    s0, middle_a = np.minimum(left_low, right_low), np.maximum(left_low, right_low)
    middle_b, s3 = np.minimum(left_high, right_high), np.maximum(left_high, right_high)
    s1, s2 = np.minimum(middle_a, middle_b), np.maximum(middle_a, middle_b)
    mode: NDArray[Value] = s0 ^ ((s0 ^ s2) & _mask(s2 == s3, upper.dtype))
    mode ^= (mode ^ s1) & _mask((s0 == s1) | (s1 == s2), upper.dtype)
    mode += step
    return mode


def _mean_of_pairs(upper: Pixels, lower: Pixels) -> Pixels:
    above, below = upper.view("<u2"), lower.view("<u2")
    total = (above & 255) + (above >> 8) + (below & 255) + (below >> 8) + np.uint16(2)
    mean: Pixels = (total >> 2).astype(np.uint8)
    return mean


def _split_columns(plane: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the even and the odd columns of (rows, 2 * columns), each contiguous."""
    if plane.itemsize > 1:
        return np.ascontiguousarray(plane[:, ::2]), np.ascontiguousarray(plane[:, 1::2])
    pairs = plane.view("<u2")
    return pairs.astype(np.uint8), (pairs >> 8).astype(np.uint8)


def _mask(condition: NDArray[np.bool_], dtype: np.dtype[Value]) -> NDArray[Value]:
    """Return all bits where true, 0 elsewhere."""
    ones = condition.view(np.uint8)
    mask: NDArray[Value] = np.negative(ones.astype(dtype, copy=False))
    return mask

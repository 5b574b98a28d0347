"""The shapes of a pyramid, and how one level becomes the next. No I/O.

A level is half its predecessor, rounded up. Both reductions look at 2 x 2 pixels, so all pyramids
(labels, probabilities, image) share the same half-pixel translation; at an odd edge they use the
pixels that exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Shape

CHUNK = 512
"""Side of an inner chunk, px, at every level (some viewers want one tile size throughout)."""

TAIL_SHARD = 2048
"""Side of a shard of the levels that no block task writes, px."""

STRIP = 128
"""Rows reduced at a time: the intermediate arrays of 4096 columns then stay in the CPU's cache."""

Pixels = NDArray[np.uint8]
Reduce = Callable[[Pixels], Pixels]


def is_block_side(side: int) -> bool:
    """Return whether a block may have this side: `CHUNK` px times a power of two.

    >>> is_block_side(2048), is_block_side(1536), is_block_side(0)
    (True, False, False)
    """
    factor, rest = divmod(side, CHUNK)
    return rest == 0 and factor > 0 and factor & (factor - 1) == 0


@dataclass(frozen=True)
class Pyramid:
    """The levels of one array and how they are cut into shards.

    Attributes:
        shape: (rows, columns) of level 0, px.
        block: side of a block, px: 512 times a power of two. One block is one shard of level 0.
        levels: number of levels; 0 (the default) is replaced by `levels_for(shape)`. Levels may
            shrink to a single pixel: arrays that lie together have equally many.
    """

    shape: Shape
    block: int
    levels: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(f"a pyramid of nothing: {self.shape}")
        if not is_block_side(self.block):
            raise ValueError(
                f"block side {self.block} px is not {CHUNK} times a power of two "
                f"({CHUNK}, {2 * CHUNK}, {4 * CHUNK}, …)"
            )
        if self.levels < 0:
            raise ValueError(f"a pyramid can't have {self.levels} levels")
        if self.levels == 0:
            object.__setattr__(self, "levels", self.levels_for(self.shape))

    @staticmethod
    def levels_for(shape: Shape) -> int:
        """Return the number of levels until the longer side fits one chunk.

        >>> Pyramid.levels_for((513, 40)), Pyramid.levels_for((512, 1))
        (2, 1)
        """
        return max(0, (max(shape) - 1) // CHUNK).bit_length() + 1

    @property
    def grid(self) -> BlockGrid:
        """The blocks of level 0."""
        return BlockGrid(self.shape, self.block)

    @property
    def task_levels(self) -> int:
        """Number of levels that the task of a block writes; the rest is the tail."""
        return min((self.block // CHUNK).bit_length(), self.levels)

    @property
    def level_shapes(self) -> list[Shape]:
        """(rows, columns) of every level."""
        return [self.level_shape(level) for level in range(self.levels)]

    def level_shape(self, level: int) -> Shape:
        """Return (rows, columns) of a level, px of that level."""
        rows, columns = self.shape
        return -(-rows // (1 << level)), -(-columns // (1 << level))

    def shard_side(self, level: int) -> int:
        """Return the side of the shards of a level, px of that level."""
        return self.block >> level if level < self.task_levels else TAIL_SHARD

    def level_grid(self, level: int) -> BlockGrid:
        """Return the shards of a level. On task levels a block's shards all have its index."""
        return BlockGrid(self.level_shape(level), self.shard_side(level))


def shard_key(group: str, level: int, index: BlockIndex, channels: bool) -> str:
    """Return the key of a shard: of (y, x) arrays, or with `channels` of (c, y, x) arrays.

    >>> shard_key("labels/nuclei", 0, (3, 4), False), shard_key("", 1, (0, 2), True)
    ('labels/nuclei/0/c/3/4', '1/c/0/0/2')
    """
    start = f"{group}/{level}" if group else str(level)
    return f"{start}/c/{'0/' if channels else ''}{index[0]}/{index[1]}"


def reduce_mode(labels: Pixels) -> Pixels:
    """Return labels at half the size: of 2 x 2 pixels the most frequent label.

    Background (0) doesn't win a tie; among other labels the lowest does.

    >>> reduce_mode(np.array([[0, 0, 2, 1], [3, 3, 3, 0]], np.uint8)).tolist()
    [[3, 1]]

    Args:
        labels: uint8 (rows, columns).

    Returns:
        uint8 (ceil(rows / 2), ceil(columns / 2)).
    """
    if not labels.any():
        return np.zeros([-(-side // 2) for side in labels.shape], np.uint8)
    return _by_strips(labels, _mode_of_pairs)


def reduce_mean(channels: Pixels) -> Pixels:
    """Return intensities at half the size: of 2 x 2 pixels the mean, halves rounded up.

    >>> reduce_mean(np.array([[[0, 1, 9], [1, 0, 9]]], np.uint8)).tolist()
    [[[1, 9]]]

    Args:
        channels: uint8 (channels, rows, columns).

    Returns:
        uint8 (channels, ceil(rows / 2), ceil(columns / 2)).
    """
    return np.stack([_by_strips(channel, _mean_of_pairs) for channel in channels])


def _by_strips(plane: Pixels, pairs: Callable[[Pixels, Pixels], Pixels]) -> Pixels:
    """Apply `pairs` to the even and odd rows of (rows, columns), a few rows at a time.

    An odd edge is repeated, which leaves both the mode and the mean of what exists unchanged.
    """
    rows, columns = plane.shape
    if rows % 2 or columns % 2:
        plane = np.pad(plane, ((0, rows % 2), (0, columns % 2)), mode="edge")
    plane = np.ascontiguousarray(plane)
    reduced = np.empty((plane.shape[0] // 2, plane.shape[1] // 2), np.uint8)
    for row in range(0, plane.shape[0], STRIP):
        strip = plane[row : row + STRIP]
        reduced[row // 2 : (row + STRIP) // 2] = pairs(strip[::2], strip[1::2])
    return reduced


def _mode_of_pairs(upper: Pixels, lower: Pixels) -> Pixels:
    """Return the mode of 2 x 2 pixels, given as (rows, 2 * columns) twice.

    Labels are shifted down by one, so background becomes 255 and "the lowest wins a tie" is the
    whole rule. Sorted as s0 <= s1 <= s2 <= s3, the mode is s1 where it equals a neighbour, else
    s2 where it equals s3, else (all differ) s0. Everything is uint8 min, max and bit masks:
    several times faster than `np.where` and strided slices.
    """
    one = np.uint8(1)
    upper, lower = upper - one, lower - one  # wraps around on purpose
    left_low, right_low = _columns(np.minimum(upper, lower))
    left_high, right_high = _columns(np.maximum(upper, lower))
    s0, middle_a = np.minimum(left_low, right_low), np.maximum(left_low, right_low)
    middle_b, s3 = np.minimum(left_high, right_high), np.maximum(left_high, right_high)
    s1, s2 = np.minimum(middle_a, middle_b), np.maximum(middle_a, middle_b)
    mode: Pixels = s0 ^ ((s0 ^ s2) & _mask(s2 == s3))
    mode ^= (mode ^ s1) & _mask((s0 == s1) | (s1 == s2))
    mode += one
    return mode


def _mean_of_pairs(upper: Pixels, lower: Pixels) -> Pixels:
    above, below = upper.view("<u2"), lower.view("<u2")
    total = (above & 255) + (above >> 8) + (below & 255) + (below >> 8) + np.uint16(2)
    mean: Pixels = (total >> 2).astype(np.uint8)
    return mean


def _columns(plane: Pixels) -> tuple[Pixels, Pixels]:
    """Return the even and the odd columns of (rows, 2 * columns), each contiguous."""
    pairs = plane.view("<u2")
    return pairs.astype(np.uint8), (pairs >> 8).astype(np.uint8)


def _mask(condition: NDArray[np.bool_]) -> Pixels:
    """Return 255 where true, 0 elsewhere."""
    mask: Pixels = np.negative(condition.view(np.uint8))
    return mask

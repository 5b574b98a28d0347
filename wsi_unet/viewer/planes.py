"""Reading labels and probabilities at any zoom, also while a run is still writing them.

The coarsest levels of a pyramid are written last, when all blocks are done. Until then they are
made here from the finer ones, block by block, and what a block comes to is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.labels.pyramid import Pyramid, Reduce, reduce_mean, reduce_mode
from wsi_unet.labels.stored_level import StoredLevel
from wsi_unet.process_cache import ProcessCache
from wsi_unet.viewer.run_states import RunStates
from wsi_unet.viewer.tile_grid import TilePlace

KEPT_BLOCKS = 1 << 14
"""Blocks whose reduced pixels are kept: 64 MiB of them."""

KEPT_SIDE = 64
"""Side of the reduced pixels of a block that are kept, px."""

Plane = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PlaneReader:
    """Reads one plane of a pyramid: labels, or the probabilities of one class.

    Attributes:
        levels: its levels, the finest first.
        pyramid: their shapes.
        channel: the channel that is read; None of labels, which have none.
        downsample: (y, x) px of the slide per px of the finest level.
    """

    levels: Sequence[StoredLevel]
    pyramid: Pyramid
    channel: int | None
    downsample: tuple[float, float]
    _kept: ProcessCache[Plane] = field(default_factory=lambda: ProcessCache(KEPT_BLOCKS))

    def choose_level(self, step: int, *, finished: bool = True) -> int:
        """Return the coarsest level that isn't coarser than `step` px of the slide.

        Args:
            step: side of what a pixel of the tile covers, px of the slide.
            finished: whether all levels are stored; otherwise a block needs a pixel of its own.
        """
        usable = len(self.levels)
        if not finished:
            usable = min(usable, self.pyramid.block.bit_length())
        finest = min(self.downsample)
        return max((n for n in range(usable) if finest * 2**n <= step), default=0)

    def read_tile(self, place: TilePlace, states: RunStates, margin: int = 0) -> Plane:
        """Return the values under the centres of a tile's pixels; 0 beyond the labels.

        Args:
            place: the tile.
            states: which blocks are done.
            margin: how many pixels around the tile are read too.

        Returns:
            (TILE + 2·margin, TILE + 2·margin).

        Raises:
            OutputError: a shard is damaged or lost.
        """
        level = self.choose_level(place.step, finished=states.finished)
        y, x = self.downsample
        rows, columns = place.find_indices((y * 2**level, x * 2**level), margin)
        shape = self.pyramid.level_shape(level)
        used_rows, used_columns = _clip(rows, shape[0]), _clip(columns, shape[1])
        found = np.zeros((len(rows), len(columns)), np.uint8)
        if not used_rows.size or not used_columns.size:
            return found
        box = Box(
            int(used_rows[0]),
            int(used_columns[0]),
            int(used_rows[-1]) + 1,
            int(used_columns[-1]) + 1,
        )
        values = self.read(level, box, states)
        inside_rows = (rows >= 0) & (rows < shape[0])
        inside_columns = (columns >= 0) & (columns < shape[1])
        found[np.ix_(inside_rows, inside_columns)] = values[
            np.ix_(used_rows - box.y0, used_columns - box.x0)
        ]
        return found

    def read(self, level: int, box: Box, states: RunStates) -> Plane:
        """Return a box (h, w) inside a level, whether the level is stored already or not.

        Raises:
            OutputError: a shard is damaged or lost.
        """
        stored = self.pyramid.task_levels
        if states.finished or level < stored:
            return self._read_stored(level, box)
        return self._gather(level, box, states)

    def _read_stored(self, level: int, box: Box) -> Plane:
        rows, columns = box.slices()
        key = (rows, columns) if self.channel is None else (self.channel, rows, columns)
        return self.levels[level][key]

    def _gather(self, level: int, box: Box, states: RunStates) -> Plane:
        """Return a box of a level that isn't stored yet, put together from blocks."""
        grid = BlockGrid(self.pyramid.level_shape(level), self.pyramid.block >> level)
        found = np.zeros(box.shape, np.uint8)
        for index in grid.touching(box):
            if not states.is_done(index):
                continue
            core = grid.core(index)
            shared = core.intersection(box)
            pixels = self._reduce_block(index, level, states)
            found[shared.relative_to(box).slices()] = pixels[shared.relative_to(core).slices()]
        return found

    def _reduce_block(self, index: BlockIndex, level: int, states: RunStates) -> Plane:
        """Return a block at a level that isn't stored yet."""
        kept = max(self.pyramid.task_levels - 1, (self.pyramid.block // KEPT_SIDE).bit_length() - 1)
        if level < kept:
            return self._reduce(self._read_block(index), level - self.pyramid.task_levels + 1)
        count = kept - self.pyramid.task_levels + 1
        key = index, states.identify_block(index)
        small = self._kept.get(key, lambda: self._reduce(self._read_block(index), count))
        return self._reduce(small, level - kept)

    def _read_block(self, index: BlockIndex) -> Plane:
        """Return a block on the coarsest level that blocks write."""
        level = self.pyramid.task_levels - 1
        grid = BlockGrid(self.pyramid.level_shape(level), self.pyramid.block >> level)
        return self._read_stored(level, grid.core(index))

    def _reduce(self, pixels: Plane, times: int) -> Plane:
        reduce: Reduce[np.uint8] = reduce_mode if self.channel is None else _reduce_plane
        for _ in range(times):
            pixels = reduce(pixels)
        return pixels


def _reduce_plane(pixels: Plane) -> Plane:
    reduced: Plane = reduce_mean(pixels[None])[0]
    return reduced


def _clip(indices: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    return indices[(indices >= 0) & (indices < side)]

"""Where a run's model looked, where it will, and where it failed: block by block, and by pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.labels.progress import BlockMarker
from wsi_unet.slides.tissue.mask import TissueMask, find_cells
from wsi_unet.viewer.tile_grid import TilePlace


class Look(IntEnum):
    """What is known of a pixel."""

    LOOKED = 0
    NOT_LOOKED = 1
    WAITING = 2
    FAILED = 3
    OUTSIDE = 4


Looks = NDArray[np.uint8]
"""Values of `Look`."""


@dataclass(frozen=True, eq=False)
class RunStates:
    """The state of each block of a run at one moment.

    Attributes:
        grid: its blocks.
        finished: whether its labels are finished, so that all levels are stored.
        blocks: (rows, columns) of `Look` by block.
        boxes: disjoint boxes of the blocks of which only parts were computed, px of the labels.
        mask: tissue, stretched over the grid; None where the model looked everywhere.
        markers: what identifies the pixels of a block that is done, by block; () once finished.
        failures: why blocks failed.
    """

    grid: BlockGrid
    finished: bool
    blocks: Looks
    boxes: Mapping[BlockIndex, Sequence[Box]]
    mask: TissueMask | None
    markers: Mapping[BlockIndex, str] = field(default_factory=dict)
    failures: Mapping[BlockIndex, str] = field(default_factory=dict)

    @classmethod
    def collect(
        cls,
        grid: BlockGrid,
        mask: TissueMask | None,
        planned: Iterable[BlockIndex],
        markers: Iterable[BlockMarker],
        failures: Mapping[BlockIndex, str],
        *,
        finished: bool,
        is_whole: Callable[[BlockMarker], bool],
    ) -> RunStates:
        """Return the states that markers tell of.

        Args:
            grid: the blocks.
            mask: tissue; None if there is no mask.
            planned: the blocks that the run computes.
            markers: those of finished blocks.
            failures: why blocks failed.
            finished: whether the labels are finished.
            is_whole: whether a marker says that all that is wanted of its block is done.
        """
        blocks = np.full(grid.size, Look.NOT_LOOKED, np.uint8)
        if not finished:
            for index in planned:
                blocks[index] = Look.WAITING
        for index in failures:
            if _is_in(grid, index):
                blocks[index] = Look.FAILED
        boxes: dict[BlockIndex, Sequence[Box]] = {}
        identities: dict[BlockIndex, str] = {}
        for marker in markers:
            if not _is_in(grid, marker.block):
                continue
            if marker.boxes is not None:
                boxes[marker.block] = marker.covered(grid)
            if finished or is_whole(marker):
                blocks[marker.block] = Look.LOOKED
            identities[marker.block] = f"{marker.ended} {marker.worker} {marker.attempts}"
        return cls(grid, finished, blocks, boxes, mask, identities, failures)

    @classmethod
    def whole(cls, grid: BlockGrid, mask: TissueMask | None) -> RunStates:
        """Return the states of a finished run without regions, of which no marker is needed."""
        return cls(grid, True, np.full(grid.size, Look.LOOKED, np.uint8), {}, mask)

    @property
    def looked_everywhere(self) -> bool:
        """Whether the model looked at every pixel."""
        masked = self.mask is not None and not self.mask.all()
        return not masked and not self.boxes and not self.blocks.any()

    def is_done(self, index: BlockIndex) -> bool:
        """Return whether something of a block is stored."""
        return self.finished or index in self.markers

    def identify_block(self, index: BlockIndex) -> str:
        """Return what changes when the pixels of a block do."""
        return self.markers.get(index, "")

    def list_changed(self, earlier: RunStates) -> list[BlockIndex]:
        """Return the blocks that look different from how they did."""
        if self.grid != earlier.grid or self.finished != earlier.finished:
            return [*self.grid]
        changed = {(int(r), int(c)) for r, c in np.argwhere(self.blocks != earlier.blocks)}
        changed |= {i for i in self.markers if self.markers[i] != earlier.markers.get(i)}
        changed |= earlier.markers.keys() - self.markers.keys()
        return sorted(changed)

    def read_tile(
        self, place: TilePlace, downsample: tuple[float, float], margin: int = 0
    ) -> Looks:
        """Return what is known at the centres of a tile's pixels.

        Args:
            place: the tile.
            downsample: (y, x) px of the slide per px of the labels.
            margin: how many pixels around the tile are looked up too.

        Returns:
            (TILE + 2·margin, TILE + 2·margin) of `Look`; OUTSIDE beyond the slide.
        """
        rows, columns = place.find_indices(downsample, margin)
        found = np.full((len(rows), len(columns)), Look.OUTSIDE, np.uint8)
        # The last pixels may reach beyond the slide with their centres, and still show its edge.
        on_slide = place.find_inside(margin)
        own_rows = np.clip(rows[on_slide[0]], 0, self.grid.shape[0] - 1)
        own_columns = np.clip(columns[on_slide[1]], 0, self.grid.shape[1] - 1)
        found[np.ix_(*on_slide)] = self._look_up(own_rows, own_columns)
        return found

    def _look_up(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Looks:
        """Return what is known of pixels of the labels in ascending rows and columns."""
        side = self.grid.side
        found = self.blocks[np.ix_(rows // side, columns // side)]
        shown = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        for index, boxes in self.boxes.items():
            core = self.grid.core(index)
            if not core.intersection(shown).area:
                continue
            if self.blocks[index] == Look.LOOKED:
                _fill(found, rows, columns, core, Look.NOT_LOOKED)
            for box in boxes:
                _fill(found, rows, columns, box, Look.LOOKED)
        if self.mask is not None:
            height, width = self.grid.shape
            own_rows = find_cells(rows.astype(np.intp), height, self.mask.shape[0])
            own_columns = find_cells(columns.astype(np.intp), width, self.mask.shape[1])
            tissue = self.mask[np.ix_(own_rows, own_columns)]
            found[~tissue & (found == Look.LOOKED)] = Look.NOT_LOOKED
        return found


def _is_in(grid: BlockGrid, index: BlockIndex) -> bool:
    return 0 <= index[0] < grid.size[0] and 0 <= index[1] < grid.size[1]


def _fill(
    looks: Looks, rows: NDArray[np.int64], columns: NDArray[np.int64], box: Box, look: Look
) -> None:
    """Set the pixels of ascending rows and columns that lie in a box."""
    y0, y1 = np.searchsorted(rows, (box.y0, box.y1))
    x0, x1 = np.searchsorted(columns, (box.x0, box.x1))
    looks[y0:y1, x0:x1] = look

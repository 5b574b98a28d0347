"""Checking what the markers of a run say against its arrays. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.labels.pyramid import Pyramid, shard_key
from wsi_unet.labels.shards import ShardRecord, most_shard_bytes


class Marker(Protocol):
    """The parts of a marker that follow from the run."""

    @property
    def block(self) -> BlockIndex:
        """The block."""
        ...

    @property
    def counts(self) -> tuple[int, ...]:
        """Level-0 pixels per label value, one group after the other."""
        ...

    @property
    def predicted(self) -> int:
        """Level-0 pixels that were predicted."""
        ...

    @property
    def boxes(self) -> tuple[tuple[int, int, int, int], ...] | None:
        """What of the block was computed as disjoint boxes; None for all of it."""
        ...

    @property
    def shards(self) -> Mapping[str, ShardRecord]:
        """The shards, by key."""
        ...


@dataclass(frozen=True)
class RunLayout:
    """The arrays that a run fills; they share a pyramid.

    Attributes:
        pyramid: the pyramid.
        labels: keys of the label groups, "labels/nuclei".
        channels: number of channels of each (c, y, x) array, by its group's key ("" is the root).
        values: number of label values of each label group; None if that isn't known.
        masked: whether pixels outside of a tissue mask aren't predicted.
    """

    pyramid: Pyramid
    labels: tuple[str, ...]
    channels: tuple[tuple[str, int], ...]
    values: int | None = None
    masked: bool = True

    def fits_block(self, marker: Marker) -> bool:
        """Return whether a marker can be that of its block.

        Its shards are the block's, none longer than it can be. Every pixel of the block counts in
        each label group, once; where labels aren't background, pixels were predicted, and those lie
        in what the run's regions cover; a shard that isn't stored has background only.
        """
        row, column = marker.block
        rows, columns = self._grid.size
        if not (0 <= row < rows and 0 <= column < columns):
            return False
        levels = range(self.pyramid.task_levels)
        blocks = ((level, marker.block) for level in levels)
        return self._fits_shards(marker.shards, blocks) and self._fits_counts(marker)

    def fits_tail(self, marker: Marker) -> bool:
        """Return whether a marker can be that of the levels that no block task writes."""
        if marker.counts or marker.predicted:
            return False
        return self._fits_shards(marker.shards, self._tail())

    def count_tail_shards(self) -> int:
        """Return how many shards the levels have that no block task writes."""
        grids = map(self.pyramid.level_grid, range(self.pyramid.task_levels, self.pyramid.levels))
        return sum(map(len, grids)) * (len(self.labels) + len(self.channels))

    @cached_property
    def _grid(self) -> BlockGrid:
        return self.pyramid.grid

    @cached_property
    def _arrays(self) -> tuple[tuple[str, int | None], ...]:
        return (*((group, None) for group in self.labels), *self.channels)

    def _tail(self) -> Iterable[tuple[int, BlockIndex]]:
        for level in range(self.pyramid.task_levels, self.pyramid.levels):
            for index in self.pyramid.level_grid(level):
                yield level, index

    def _fits_shards(
        self, shards: Mapping[str, ShardRecord], blocks: Iterable[tuple[int, BlockIndex]]
    ) -> bool:
        expected = 0
        for level, index in blocks:
            side = self.pyramid.shard_side(level)
            for group, channels in self._arrays:
                shard = shards.get(shard_key(group, level, index, channels is not None))
                if shard is None or shard.length > most_shard_bytes(side, channels or 1):
                    return False
                expected += 1
        return expected == len(shards)

    def _fits_counts(self, marker: Marker) -> bool:
        counts, predicted = marker.counts, marker.predicted
        if not self.labels:
            return not counts and not predicted and marker.boxes is None
        core = self._grid.core(marker.block)
        area, covered = core.area, _count_covered(marker, core)
        values, rest = divmod(len(counts), len(self.labels))
        if rest or values < 1 or self.values not in (None, values):
            return False
        if covered is None or predicted > covered or not (self.masked or predicted == covered):
            return False
        for number, group in enumerate(self.labels):
            background, *classes = counts[number * values : (number + 1) * values]
            labelled = sum(classes)
            if background + labelled != area or labelled > predicted:
                return False
            if marker.shards[shard_key(group, 0, marker.block, False)].empty != (not labelled):
                return False
        return True


def _count_covered(marker: Marker, core: Box) -> int | None:
    """Return how many pixels of its block a marker says were computed; None if it can't be true."""
    if marker.boxes is None:
        return core.area
    boxes = [Box(*box) for box in marker.boxes]
    return sum(box.area for box in boxes) if all(map(core.contains, boxes)) else None

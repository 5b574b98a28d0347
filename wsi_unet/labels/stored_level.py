"""One level of a stored pyramid as a lazy array, read shard by shard through our own decoder.

zarr-python would follow whatever an array's metadata says: links, any codec, chunks of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box, Shape
from wsi_unet.labels.documents import DamagedError, read_array_shape
from wsi_unet.labels.progress import Progress, RunRecord
from wsi_unet.labels.pyramid import UINT8, Pyramid
from wsi_unet.labels.writer import read_shards
from wsi_unet.storage.store import ByteStore

if TYPE_CHECKING:
    import dask.array as da  # which takes long to import, and whoever reads boxes needs none


class LostShards(Protocol):
    """Tells shards that were lost from those that are background, which aren't stored."""

    def is_lost(self, key: str, index: BlockIndex) -> bool:
        """Return whether a shard that isn't stored was stored once."""
        ...


@dataclass(frozen=True)
class ShardRecords:
    """What a run recorded of its shards, which tells one that was lost from background.

    Attributes:
        progress: the run's progress files.
        run: the run's record.
    """

    progress: Progress
    run: RunRecord

    @classmethod
    def open(cls, store: ByteStore, run: str) -> ShardRecords | None:
        """Return the records of a run; None if its progress isn't kept beside its arrays.

        Raises:
            OutputError: what is known of the run is damaged.
        """
        progress = Progress(store, run)
        record = progress.read_run()
        return None if record is None else cls(progress, record)

    def is_lost(self, key: str, index: BlockIndex) -> bool:
        """Return whether a shard that isn't stored was stored once.

        Args:
            key: its key.
            index: its index, which is that of its block unless it belongs to the small levels.
        """
        marker = self.progress.read_marker(index, self.run.signature)
        if marker is None or key not in marker.shards:
            marker = self.progress.read_tail(self.run.signature)
        shard = None if marker is None else marker.shards.get(key)
        return shard is not None and not shard.empty


@dataclass(frozen=True)
class StoredLevel:
    """A level of an array (y, x) or (c, y, x), with what Dask needs to read parts of it.

    Attributes:
        store: the output.
        group: the group's key, "labels/nuclei", or "" for the root.
        level: the level, 0 the finest.
        shape: shape of the level, px of the level.
        side: side of its shards, px of the level.
        records: what is known of its shards; None: nothing, so one that isn't there is background.
        dtype: type of its pixels.
    """

    store: ByteStore
    group: str
    level: int
    shape: tuple[int, ...]
    side: int
    records: LostShards | None
    dtype: np.dtype[Any] = UINT8

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def plane(self) -> Shape:
        """(rows, columns), px of the level."""
        return self.shape[-2], self.shape[-1]

    def __getitem__(self, key: tuple[slice | int | NDArray[np.intp], ...]) -> NDArray[Any]:
        """Return a part of the level.

        Raises:
            OutputError: a shard is damaged or lost, or can't be read.
        """
        channels = self.shape[0] if self.ndim == 3 else None
        grid = BlockGrid(self.plane, self.side)

        def read(box: Box) -> NDArray[Any]:
            is_lost = None if self.records is None else self.records.is_lost
            return read_shards(
                self.store, self.group, self.level, grid, box, channels, self.dtype, is_lost=is_lost
            )

        return read_selection(self.shape, key, self.dtype, read)

    def to_dask(self) -> da.Array:
        """Return the level as a lazy array with one chunk per shard."""
        import dask.array as da

        array: da.Array = da.from_array(
            self,
            chunks=(*self.shape[:-2], self.side, self.side),
            meta=np.empty((0,) * self.ndim, self.dtype),
        )
        return array


MOST_MISSING_LEVELS = 4
"""How many levels fewer a pyramid may have than its size needs: all arrays of an output have as
many levels as the first, whose pixels may be up to 16 times as large."""


def open_level(
    store: ByteStore,
    group: str,
    level: int,
    levels: int,
    channels: bool,
    records: LostShards | None = None,
    dtype: np.dtype[Any] = UINT8,
) -> StoredLevel:
    """Return a level of a pyramid; its pixels aren't read yet.

    Args:
        store: the output.
        group: the group's key, or "" for the root.
        level: the level.
        levels: number of levels of the pyramid.
        channels: whether the arrays are (c, y, x).
        records: what is known of its shards.
        dtype: type of the pixels.

    Raises:
        OutputError: the level isn't there, or isn't a level of its pyramid.
    """
    finest, _ = read_array_shape(store, f"{group}/0" if group else "0", dtype)
    key = f"{group}/{level}" if group else str(level)
    shape, side = read_array_shape(store, key, dtype)
    expected = (*finest[:-2], *(-(-edge // (1 << level)) for edge in finest[-2:]))
    needed = Pyramid.count_levels((finest[-2], finest[-1]))
    sound = shape == expected and (len(shape) == 3) == channels
    if not sound or needed > levels + MOST_MISSING_LEVELS:
        raise DamagedError(
            f"{store}: {key!r} isn't a level of its pyramid; compute the labels again with "
            "`overwrite=True`"
        )
    return StoredLevel(store, group, level, shape, side, records, dtype)


def read_selection(
    shape: tuple[int, ...],
    key: tuple[slice | int | NDArray[np.intp], ...],
    dtype: np.dtype[Any],
    read: Callable[[Box], NDArray[Any]],
) -> NDArray[Any]:
    """Return a selection from an array that is read box by box.

    Dask asks for selections rather than chunks, so that a small piece costs little.

    Args:
        shape: shape of the array, (..., rows, columns).
        key: what is selected along each dimension, independently of the others.
        dtype: type of the values.
        read: returns a box of rows and columns, of everything along the dimensions before.
    """
    selected = [np.arange(side)[part] for side, part in zip(shape, key, strict=True)]
    result = [len(positions) for positions in selected if positions.ndim]
    *leading, rows, columns = map(np.atleast_1d, selected)
    if not all(positions.size for positions in (*leading, rows, columns)):
        return np.zeros(result, dtype)
    y0, x0 = int(rows.min()), int(columns.min())
    pixels = read(Box(y0, x0, int(rows.max()) + 1, int(columns.max()) + 1))
    within = [*leading, rows - y0, columns - x0]
    if not all(map(_is_everything, within, pixels.shape)):  # which would copy
        pixels = pixels[np.ix_(*within)]
    return pixels.reshape(result)


def _is_everything(positions: NDArray[np.intp], side: int) -> bool:
    return len(positions) == side and bool((np.diff(positions) == 1).all())

"""Writing pixels: one block with its piece of the pyramid, and the small levels at the end.

A block is one shard on each level that its task writes, so no two tasks ever write the same key,
and each shard is put as a whole: nothing is read, and a torn shard is simply replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.labels.pyramid import UINT8, Pyramid, Reduce, Value, shard_key
from wsi_unet.labels.shards import ShardRecord, decode_shard, encode_shard, most_shard_bytes
from wsi_unet.storage.concurrent import map_concurrently
from wsi_unet.storage.store import ByteStore, TooLargeError


def write_block(
    store: ByteStore,
    group: str,
    pyramid: Pyramid,
    index: BlockIndex,
    data: NDArray[Value],
    reduce: Reduce[Value],
    dtype: np.dtype[Any] = UINT8,
) -> dict[str, ShardRecord]:
    """Write one block: its shard of level 0 and its shards of the other task levels.

    Args:
        store: the output.
        group: the group's key, "labels/nuclei", or "" for the root.
        pyramid: the pyramid of the arrays in that group.
        index: the block's index in `pyramid.grid`.
        data: the block's pixels, (h, w) or (c, h, w).
        reduce: `reduce_mode` or `reduce_mean`.
        dtype: type of the arrays' pixels.

    Returns:
        The records of the shards, by key: one per task level; `empty` ones aren't stored.

    Raises:
        ValueError: `data` isn't exactly the block.
        IndexError: there is no such block.
        OutputError: a shard can't be written.
    """
    expected = pyramid.grid.core(index).shape
    if data.dtype != dtype or data.ndim not in (2, 3) or data.shape[-2:] != expected:
        raise ValueError(
            f"block {index} of {group or 'the image'} is {dtype} {expected[0]} x {expected[1]} px, "
            f"got {data.dtype} {data.shape}; a task must write exactly its own block, since two "
            "writers in one shard lose data"
        )

    def level_shards() -> Iterator[tuple[str, NDArray[Value], int]]:
        pixels = data
        for level in range(pyramid.task_levels):
            if level:
                pixels = reduce(pixels)
            yield shard_key(group, level, index, data.ndim == 3), pixels, pyramid.shard_side(level)

    def put(shard: tuple[str, NDArray[Value], int]) -> tuple[str, ShardRecord]:
        return shard[0], _put_shard(store, *shard)

    return dict(map_concurrently(put, level_shards(), store.location))


def build_tail(
    store: ByteStore,
    group: str,
    pyramid: Pyramid,
    reduce: Reduce[Any],
    channels: int | None = None,
    dtype: np.dtype[Any] = UINT8,
) -> dict[str, ShardRecord]:
    """Write the tail: the levels that no block task writes, each from the level before.

    One shard (2048 px a side) at a time is made from 4096 x 4096 px of the level before, so memory
    doesn't grow with the slide. The same input gives the same bytes.

    Args:
        store: the output; every block must have been written.
        group: the group's key, "labels/nuclei", or "" for the root.
        pyramid: the pyramid of the arrays in that group.
        reduce: `reduce_mode` or `reduce_mean`.
        channels: number of channels of (c, y, x) arrays; None for (y, x) arrays.
        dtype: type of the arrays' pixels.

    Returns:
        The records of the shards, by key.

    Raises:
        OutputError: a shard is damaged or can't be written.
    """
    records = {}
    for level in range(pyramid.task_levels, pyramid.levels):
        grid = pyramid.level_grid(level)
        previous = Box.from_shape(pyramid.level_shape(level - 1))
        for index in grid:
            core = grid.core(index)
            source = Box(2 * core.y0, 2 * core.x0, 2 * core.y1, 2 * core.x1).intersection(previous)
            data = reduce(read_box(store, group, pyramid, level - 1, source, channels, dtype))
            key = shard_key(group, level, index, channels is not None)
            records[key] = _put_shard(store, key, data, grid.side)
    return records


def read_box(
    store: ByteStore,
    group: str,
    pyramid: Pyramid,
    level: int,
    box: Box,
    channels: int | None = None,
    dtype: np.dtype[Any] = UINT8,
) -> NDArray[Any]:
    """Read the pixels of `box` (inside the level, px of the level), shard by shard.

    Returns:
        (h, w), or (channels, h, w) if `channels` is given, of `dtype`. A shard that isn't stored is
        background.

    Raises:
        OutputError: a shard is damaged.
    """
    grid = pyramid.level_grid(level)
    return read_shards(store, group, level, grid, box, channels, dtype)


def read_shards(
    store: ByteStore,
    group: str,
    level: int,
    grid: BlockGrid,
    box: Box,
    channels: int | None = None,
    dtype: np.dtype[Any] = UINT8,
    checksums: Mapping[BlockIndex, str] | None = None,
    is_lost: Callable[[str, BlockIndex], bool] | None = None,
) -> NDArray[Any]:
    """Do as `read_box`, for a level whose shards lie in `grid`.

    Shards that aren't there are background, so those that were lost must be told from them: by
    `checksums` of all blocks that have a shard, which what is stored must have; or by `is_lost`,
    which is asked about the keys and indices of those that aren't there.
    """
    leading: tuple[int, ...] = () if channels is None else (channels,)
    data = np.zeros((*leading, *box.shape), dtype)
    most = most_shard_bytes(grid.side, channels or 1, dtype.itemsize)
    for index in grid.touching(box):
        core = grid.core(index)
        key = shard_key(group, level, index, channels is not None)
        shared = box.intersection(core)
        try:
            shard = store.get(key, most)
            if checksums is not None:
                _check_shard(shard, checksums.get(index))
            if shard is None and is_lost is not None and is_lost(key, index):
                raise ValueError("missing")
            if shard is None:
                continue
            pixels = decode_shard(
                shard, (*leading, *core.shape), grid.side, shared.relative_to(core), dtype
            )
        except (ValueError, TooLargeError) as error:
            what = error if isinstance(error, ValueError) else "no shard of that size"
            raise OutputError(
                f"{store}: {key!r} is {what}; get the output's status with `verify=True` and "
                "`forget=True`, which finds all damage, then run the same command again"
            ) from error
        rows, columns = shared.relative_to(box).slices()
        data[..., rows, columns] = pixels
    return data


def _check_shard(shard: bytes | None, checksum: str | None) -> None:
    """Check that a shard is the one with a checksum; None is no shard.

    Raises:
        ValueError: it isn't.
    """
    if (None if shard is None else hashlib.sha256(shard).hexdigest()) != checksum:
        raise ValueError("missing" if shard is None else "not the shard that was written")


def _put_shard(store: ByteStore, key: str, data: NDArray[Any], side: int) -> ShardRecord:
    shard = encode_shard(data, side)
    if shard is None:
        store.delete(key)
    else:
        store.put(key, shard)
    return ShardRecord.from_shard(shard)

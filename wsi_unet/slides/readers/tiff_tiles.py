"""The hot path for TIFF slides: whole tiles, decoded by several threads, without zarr.

tiffslide reads through zarr's single event loop, which serialises concurrent reads, and a TiffFile
isn't thread-safe. Here a level is a table of offsets and lengths plus tifffile's decode
function, and bytes come from a `ByteSource`, which has no file position to share.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wsi_unet.cores import usable_cores
from wsi_unet.errors import SlideError, foreign_errors_as
from wsi_unet.geometry import Box
from wsi_unet.slides.readers.tiff_levels import TiffLevel, as_rgb, stream_shape
from wsi_unet.slides.sources.source import ByteSource, Ranges
from wsi_unet.slides.window_memory import LARGE_TILE, WindowMemory
from wsi_unet.wording import write_size

MAX_KEPT_BYTES = 256 << 20
"""Size of all decoded tiles that are kept."""


def default_threads() -> int:
    """Return how many threads decode: more than cores, since some of them wait for the disk."""
    return max(2, min(8, 2 * usable_cores()))


TileIndex = tuple[int, int, int]
"""(plane, row, column) of a tile; planes are 0, or red, green and blue."""


@dataclass(frozen=True, eq=False, slots=True)
class _TileRead:
    """A read in progress.

    Attributes:
        level: the level that is read.
        box: the box that is read, px of the level.
        result: (h, w, 3), to be filled.
        queue: (plane, row, column) of the tiles that no thread has taken yet. An iterator over a
            list hands each of them to exactly one thread.
        encoded: the requested bytes of the tiles.
        positions: which of the ranges in `encoded` a tile is, by its plane and number.
    """

    level: int
    box: Box
    result: NDArray[np.uint8]
    queue: Iterator[TileIndex]
    encoded: Ranges
    positions: dict[tuple[int, int], int]


class TileSource:
    """Reads boxes from the tiles of one file; several threads may read at once."""

    def __init__(
        self, source: ByteSource, levels: Sequence[tuple[TiffLevel, ...]], threads: int | None
    ) -> None:
        """Read tiles from an open file, which is closed with this.

        Args:
            source: the TIFF file.
            levels: its levels: each one table of tiles, or one for each of red, green and blue.
            threads: how many threads decode tiles, for all reads together; None for a few more
                than there are cores.
        """
        self._source = source
        self._levels = levels
        self._given_threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._local = threading.local()
        self._memory = WindowMemory()
        self._kept: dict[tuple[int, int, int], NDArray[np.uint8]] = {}

    @cached_property
    def _threads(self) -> int:
        # At the first read: counting cores loads Dask, which looking at a slide spares.
        return self._given_threads or default_threads()

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box (px of the level, inside it).

        Raises:
            SlideError: a tile is truncated or can't be decoded; the message names it.
        """
        result = self._memory.empty((*box.shape, 3))
        planes = self._levels[level]
        rows, columns = planes[0].tile
        tiles = [
            (plane, i, j)
            for plane in range(len(planes))
            for i in range(box.y0 // rows, -(-box.y1 // rows))
            for j in range(box.x0 // columns, -(-box.x1 // columns))
        ]
        window = self._request(level, box, result, tiles)
        workers = min(self._threads, len(tiles))
        if workers == 1:
            self._drain(window)
            return result
        pool = self._start_pool()
        running = [pool.submit(self._drain, window) for _ in range(workers)]
        # All of them must have stopped before the array is returned or dropped.
        error = _first_error(running)
        if error is None:
            return result
        try:
            raise error
        finally:
            # The traceback refers to this frame: such a cycle would keep the window alive until
            # the garbage collector runs.
            del error, running, window

    def _request(
        self, level: int, box: Box, result: NDArray[np.uint8], tiles: list[TileIndex]
    ) -> _TileRead:
        """Request the bytes of all tiles that aren't kept decoded."""
        planes = self._levels[level]
        across = planes[0].grid[1]
        numbers = ((plane, i * across + j) for plane, i, j in tiles)
        ranges = {
            (plane, number): tile_range
            for plane, number in numbers
            if (level, plane, number) not in self._kept
            and (tile_range := planes[plane].tile_range(number)) is not None
        }
        positions = {tile: position for position, tile in enumerate(ranges)}
        encoded = self._source.request(list(ranges.values()))
        return _TileRead(level, box, result, iter(tiles), encoded, positions)

    def _start_pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tiles")
            return self._pool

    def _drain(self, window: _TileRead) -> None:
        """Decode tiles from the queue until it is empty or one fails."""
        try:
            for index in window.queue:
                self._copy_tile(window, index)
        except BaseException:
            for _ in window.queue:  # leave the other threads nothing to do
                pass
            window.encoded.cancel()
            raise

    def _copy_tile(self, window: _TileRead, index: TileIndex) -> None:
        planes = self._levels[window.level]
        tiff_level = planes[index[0]]
        rows, columns = tiff_level.tile
        y, x = index[1] * rows, index[2] * columns
        tile = Box(y, x, y + rows, x + columns)
        common = tile.intersection(window.box)
        target = window.result[common.relative_to(window.box).slices()]
        source = common.relative_to(tile).slices()
        pixels = self._decoded_tile(window, index)
        if pixels is None:
            target[..., index[0] if len(planes) > 1 else slice(None)] = tiff_level.fill
        elif len(planes) > 1:
            target[..., index[0]] = pixels[source][..., 0]
        else:
            target[...] = as_rgb(pixels[source], tiff_level.meaning)

    def _decoded_tile(self, window: _TileRead, index: TileIndex) -> NDArray[np.uint8] | None:
        """Return a decoded tile (rows, columns, samples); None if the file leaves it out.

        It may be in this thread's scratch memory, which the thread's next tile overwrites.
        """
        plane, row, column = index
        tiff_level = self._levels[window.level][plane]
        number = row * tiff_level.grid[1] + column
        if tiff_level.tile_range(number) is None:
            return None
        if tiff_level.tile[0] * tiff_level.tile[1] < LARGE_TILE:
            return self._decode(window, number, index, scratch=True)
        with self._lock:
            kept = self._kept.get((window.level, plane, number))
            if kept is None:
                kept = self._decode(window, number, index, scratch=False)
                while self._kept and kept.nbytes + self._kept_size() > MAX_KEPT_BYTES:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[window.level, plane, number] = kept
            return kept

    def _kept_size(self) -> int:
        return sum(pixels.nbytes for pixels in self._kept.values())

    def _tile_name(self, level: int, index: TileIndex) -> str:
        _, row, column = index
        return f"{self._source.location}: the tile in row {row}, column {column} of level {level}"

    def _data(self, window: _TileRead, number: int, index: TileIndex) -> bytes:
        """Return the encoded bytes of a tile."""
        tiff_level = self._levels[window.level][index[0]]
        tile_range = tiff_level.tile_range(number)
        assert tile_range is not None
        position = window.positions.get((index[0], number))
        try:
            if position is None:  # it was kept decoded when the read began
                data = self._source.request([tile_range]).get(0)
            else:
                data = window.encoded.get(position)
        except OSError as error:
            name = self._tile_name(window.level, index)
            raise SlideError(f"{name} can't be read: {error.strerror or error}") from error
        offset, length = tile_range
        missing = ""
        if len(data) < length:
            missing = f"{len(data)} of {length} bytes are there"
        elif tiff_level.jpeg and not tiff_level.jpeg.is_complete(data):
            missing = f"the JPEG of {length} bytes has no end"
        if missing:
            raise SlideError(
                f"{self._tile_name(window.level, index)} is truncated ({missing}, at offset "
                f"{offset}); the file is damaged, fetch it again"
            )
        return data

    def _decode(
        self, window: _TileRead, number: int, index: TileIndex, scratch: bool
    ) -> NDArray[np.uint8]:
        """Return a decoded tile, in this thread's scratch memory if allowed and possible."""
        tiff_level = self._levels[window.level][index[0]]
        data = self._data(window, number, index)
        if tiff_level.jpeg and scratch:
            pixels = self._scratch((*tiff_level.tile, tiff_level.samples))
            # If the fast decoder fails on a tile, tifffile's decides.
            with suppress(Exception):
                tiff_level.jpeg.decode_into(data, pixels)
                return pixels
        name = self._tile_name(window.level, index)
        area, shape = tiff_level.tile[0] * tiff_level.tile[1], stream_shape(data)
        if shape is not None and shape[0] * shape[1] > max(LARGE_TILE, 2 * area):
            raise SlideError(
                f"{name} can't be decoded: it says that it has {write_size(shape)}; the "
                "file is damaged, fetch it again"
            )
        with foreign_errors_as(SlideError, f"{name} can't be decoded"):
            decoded = tiff_level.decode(data, number, **tiff_level.arguments)[0]
        if decoded is None or decoded.ndim != 4 or decoded.dtype != np.uint8:
            raise SlideError(f"{name} holds no 8-bit image; the file is damaged, fetch it again")
        first: NDArray[np.uint8] = decoded[0]
        return first

    def _scratch(self, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Return this thread's buffer; fresh memory for every tile would take 20 % longer."""
        buffer: NDArray[np.uint8] | None = getattr(self._local, "buffer", None)
        if buffer is None or buffer.shape != shape:
            buffer = self._local.buffer = np.empty(shape, np.uint8)
        return buffer

    def close(self) -> None:
        """Stop the threads and close the file; no read may be in progress."""
        if self._pool is not None:
            self._pool.shutdown()
        self._source.close()
        self._kept.clear()
        self._memory.clear()


def _first_error(tasks: Sequence[Future[None]]) -> BaseException | None:
    """Wait for all tasks; return the error of the first that failed, None if none did.

    A task that was cancelled because another failed doesn't know why, so its error comes last.
    """
    errors = [error for task in tasks if (error := task.exception()) is not None]
    return min(errors, key=lambda error: isinstance(error, CancelledError), default=None)

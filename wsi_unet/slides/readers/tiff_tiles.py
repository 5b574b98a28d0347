"""The hot path for TIFF slides: whole tiles, decoded by several threads, without zarr between.

tiffslide reads through zarr's one event loop, which serialises concurrent reads, and a TiffFile
isn't thread-safe. Here a level is a table of offsets and lengths plus tifffile's decode
function, and bytes come from a `ByteSource`, which has no file position to share.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.colour import to_rgb
from wsi_unet.cores import usable_cores
from wsi_unet.errors import SlideError, first_line
from wsi_unet.geometry import Box
from wsi_unet.slides.readers.tiff_levels import TiffLevel
from wsi_unet.slides.sources.source import ByteSource, Ranges
from wsi_unet.slides.window_memory import WindowMemory

LARGE_TILE = 4 << 20
"""Area in px from which a tile (then mostly a strip, or all of a small image) is kept decoded."""
KEPT_BYTES = 256 << 20


def default_threads() -> int:
    """Return how many threads decode: more than cores, since some of them wait for the disk."""
    return max(2, min(8, 2 * usable_cores()))


@dataclass(frozen=True, eq=False, slots=True)
class _Window:
    """A read in progress.

    Attributes:
        level: that is read.
        box: px of the level.
        result: (h, w, 3) that is being filled.
        queue: the (row, column) of tiles that nobody has taken yet. An iterator over a list hands
            each of them to exactly one thread.
        encoded: the tiles' bytes, asked for.
        places: by number of the tile, where its bytes are in `encoded`.
    """

    level: int
    box: Box
    result: NDArray[np.uint8]
    queue: Iterator[tuple[int, int]]
    encoded: Ranges
    places: dict[int, int]


class TileSource:
    """Reads boxes from the tiles of one file. Safe to use from several threads at once."""

    def __init__(self, source: ByteSource, levels: tuple[TiffLevel, ...], threads: int) -> None:
        """Read tiles from an open file, which is closed with this.

        Args:
            source: the TIFF file.
            levels: its levels.
            threads: how many threads decode the tiles of one or several reads.
        """
        self._source = source
        self._levels = levels
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._local = threading.local()
        self._memory = WindowMemory()
        self._kept: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box (px of the level, inside it).

        Raises:
            SlideError: a tile is truncated or can't be decoded; the message names it.
        """
        result = self._memory.empty((*box.shape, 3))
        rows, columns = self._levels[level].tile
        tiles = [
            (i, j)
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
        # All of them must have stopped before the array is given away or dropped.
        error = _first_error(running)
        if error is None:
            return result
        try:
            raise error
        finally:
            # Its traceback refers to this frame: together they would keep the window alive until
            # the garbage collector comes by.
            del error, running, window

    def _request(
        self, level: int, box: Box, result: NDArray[np.uint8], tiles: list[tuple[int, int]]
    ) -> _Window:
        """Ask for the bytes of all tiles that aren't here already decoded."""
        description = self._levels[level]
        across = description.grid[1]
        numbers = (i * across + j for i, j in tiles)
        wanted = {
            number: place
            for number in numbers
            if (level, number) not in self._kept
            and (place := description.place(number)) is not None
        }
        places = {number: position for position, number in enumerate(wanted)}
        encoded = self._source.request(list(wanted.values()))
        return _Window(level, box, result, iter(tiles), encoded, places)

    def _start_pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tiles")
            return self._pool

    def _drain(self, window: _Window) -> None:
        """Decode tiles from the queue until it is empty or one fails."""
        try:
            for index in window.queue:
                self._place(window, index)
        except SlideError:
            for _ in window.queue:  # the others have nothing left to do either
                pass
            window.encoded.cancel()
            raise

    def _place(self, window: _Window, index: tuple[int, int]) -> None:
        description = self._levels[window.level]
        rows, columns = description.tile
        y, x = index[0] * rows, index[1] * columns
        tile = Box(y, x, y + rows, x + columns)
        common = tile.intersection(window.box)
        target = window.result[common.relative_to(window.box).slices()]
        source = common.relative_to(tile).slices()
        pixels = self._tile(window, index)
        target[...] = description.fill if pixels is None else to_rgb(pixels[source])

    def _tile(self, window: _Window, index: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return a decoded tile (rows, columns, samples), or None if the file leaves it out.

        It may be this thread's scratch memory: used before the next tile is asked for.
        """
        description = self._levels[window.level]
        number = index[0] * description.grid[1] + index[1]
        if description.place(number) is None:
            return None
        if description.tile[0] * description.tile[1] < LARGE_TILE:
            return self._decode(window, number, index, scratch=True)
        with self._lock:
            kept = self._kept.get((window.level, number))
            if kept is None:
                kept = self._decode(window, number, index, scratch=False)
                while self._kept and kept.nbytes + self._kept_bytes() > KEPT_BYTES:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[window.level, number] = kept
            return kept

    def _kept_bytes(self) -> int:
        return sum(pixels.nbytes for pixels in self._kept.values())

    def _place_name(self, level: int, index: tuple[int, int]) -> str:
        place = f"row {index[0]}, column {index[1]} of level {level}"
        return f"{self._source.location}: the tile in {place}"

    def _data(self, window: _Window, number: int, index: tuple[int, int]) -> bytes:
        """Return the encoded bytes of a tile."""
        description = self._levels[window.level]
        place = description.place(number)
        assert place is not None
        position = window.places.get(number)
        try:
            if position is None:  # it was here decoded when the read began
                data = self._source.request([place]).get(0)
            else:
                data = window.encoded.get(position)
        except OSError as error:
            name = self._place_name(window.level, index)
            raise SlideError(f"{name} can't be read: {error.strerror or error}") from error
        if len(data) < place[1] or (description.jpeg and not description.jpeg.complete(data)):
            raise SlideError(
                f"{self._place_name(window.level, index)} is truncated ({len(data)} of {place[1]} "
                f"bytes at offset {place[0]}); the file is damaged, fetch it again"
            )
        return data

    def _decode(
        self, window: _Window, number: int, index: tuple[int, int], scratch: bool
    ) -> NDArray[np.uint8]:
        """Return a decoded tile; in this thread's scratch memory if that is allowed and works."""
        description = self._levels[window.level]
        data = self._data(window, number, index)
        if description.jpeg and scratch:
            pixels = self._scratch((*description.tile, description.samples))
            # Whatever is unusual about a tile, tifffile's decoder has the last word on it.
            with suppress(RuntimeError, ValueError):
                description.jpeg.decode_into(data, pixels)
                return pixels
        try:
            decoded = description.decode(data, number, **description.arguments)[0]
        except (RuntimeError, ValueError) as error:  # what imagecodecs and tifffile raise
            name = self._place_name(window.level, index)
            raise SlideError(f"{name} can't be decoded: {first_line(error)}") from error
        if decoded is None or decoded.ndim != 4:
            raise SlideError(f"{self._place_name(window.level, index)} holds no image")
        first: NDArray[np.uint8] = decoded[0]
        return first

    def _scratch(self, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Return this thread's buffer: fresh memory per tile costs a fifth of the time."""
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
    """Wait for all tasks; return what the first of those that failed raised.

    One whose bytes were no longer asked for, since another had failed, doesn't know why.
    """
    errors = [error for task in tasks if (error := task.exception()) is not None]
    return min(errors, key=lambda error: isinstance(error, CancelledError), default=None)

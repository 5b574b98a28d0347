"""The hot path for TIFF slides: whole tiles, decoded by several threads, without zarr between.

tiffslide reads through zarr's one event loop, which serialises concurrent reads, and a TiffFile
isn't thread-safe. Here a level is a table of offsets and lengths plus tifffile's decode
function, and reading is `os.pread`, which has no file position to share.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box, Shape
from wsi_unet.slides.colour import to_rgb
from wsi_unet.slides.memory import WindowMemory

Decode = Callable[..., tuple[NDArray[np.uint8] | None, Any, Any]]
"""tifffile's `TiffPage.decode`: (data, index, jpegtables=, jpegheader=) to a decoded segment."""

_END_OF_IMAGE = b"\xff\xd9"
LARGE_TILE = 4 << 20
"""Area in px from which a tile (then mostly a strip, or all of a small image) is kept decoded."""
KEPT_BYTES = 256 << 20


def default_threads() -> int:
    """Return how many threads decode: more than CPUs, since some of them wait for the disk."""
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(2, min(8, 2 * cpus))


@dataclass(frozen=True)
class JpegTiles:
    """How a level's JPEG tiles are decoded.

    Attributes:
        tables: quantisation and Huffman tables that all tiles share, if they do.
        header: what precedes the tile's data, where tiles are pieces of one stream (NDPI).
        colorspace: of the stream, where the file knows better than the stream (Aperio).
        outcolorspace: what it is converted to.
    """

    tables: bytes | None
    header: bytes | None
    colorspace: int | None
    outcolorspace: int | str | None

    def complete(self, data: bytes) -> bool:
        """Whether a whole stream has its end marker; libjpeg would fill the rest with grey."""
        return self.header is not None or data.rfind(_END_OF_IMAGE) >= 0

    def decode_into(self, data: bytes, out: NDArray[np.uint8]) -> None:
        """Decode a tile into `out`.

        Raises:
            RuntimeError: the stream is damaged or of a kind that libjpeg-turbo doesn't know.
            ValueError: it holds an image of another shape.
        """
        if self.header is not None:
            data = b"".join((self.header, data, _END_OF_IMAGE))
        imagecodecs.jpeg8_decode(
            data,
            tables=self.tables,
            colorspace=self.colorspace,
            outcolorspace=self.outcolorspace,
            out=out,
        )


@dataclass(frozen=True, eq=False)
class TiffLevel:
    """Where the tiles of one level are, and how they are decoded.

    Attributes:
        shape: (rows, columns), px of the level.
        tile: (rows, columns) of a tile (or strip), px.
        offsets: position in the file of each tile, row by row; 0 if missing.
        lengths: its length in bytes; 0 if missing.
        samples: values per pixel.
        decode: tifffile's decoder for these tiles.
        arguments: what else the decoder needs: JPEG tables and header.
        jpeg: how to decode into memory that is there already, where tiles are JPEG.
        fill: grey level of missing tiles.
    """

    shape: Shape
    tile: Shape
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    samples: int
    decode: Decode
    arguments: dict[str, bytes]
    jpeg: JpegTiles | None
    fill: int

    @property
    def grid(self) -> Shape:
        """Number of tiles as (rows, columns)."""
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])


class TileSource:
    """Reads boxes from the tiles of one file. Safe to use from several threads at once."""

    def __init__(self, path: Path, levels: tuple[TiffLevel, ...], threads: int) -> None:
        """Open `path`.

        Args:
            path: the TIFF file.
            levels: its levels.
            threads: how many threads decode the tiles of one or several reads.

        Raises:
            OSError: the file can't be opened.
        """
        self._path = path
        self._levels = levels
        self._threads = threads
        self._file = os.open(path, os.O_RDONLY)
        # A slide may be dropped without having been closed.
        self._close_file = weakref.finalize(self, os.close, self._file)
        self._close_file.atexit = False
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
        # An iterator over a list hands each tile to exactly one thread.
        queue = iter(tiles)
        workers = min(self._threads, len(tiles))
        if workers == 1:
            self._drain(queue, level, box, result)
            return result
        pool = self._start_pool()
        running = [pool.submit(self._drain, queue, level, box, result) for _ in range(workers)]
        # All of them must have stopped before the array is given away or dropped.
        error = _first_error(running)
        if error is None:
            return result
        try:
            raise error
        finally:
            # Its traceback refers to this frame: together they would keep the window alive until
            # the garbage collector comes by.
            del error, running

    def _start_pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tiles")
            return self._pool

    def _drain(
        self, queue: Iterator[tuple[int, int]], level: int, box: Box, result: NDArray[np.uint8]
    ) -> None:
        """Decode tiles from the queue into `result` until it is empty or one fails."""
        try:
            for index in queue:
                self._place(level, index, box, result)
        except SlideError:
            for _ in queue:  # the others have nothing left to do either
                pass
            raise

    def _place(
        self, level: int, index: tuple[int, int], box: Box, result: NDArray[np.uint8]
    ) -> None:
        description = self._levels[level]
        rows, columns = description.tile
        y, x = index[0] * rows, index[1] * columns
        tile = Box(y, x, y + rows, x + columns)
        common = tile.intersection(box)
        target = result[common.relative_to(box).slices()]
        source = common.relative_to(tile).slices()
        number = index[0] * description.grid[1] + index[1]
        pixels = self._tile(level, number, index)
        target[...] = description.fill if pixels is None else to_rgb(pixels[source])

    def _tile(self, level: int, number: int, index: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return a decoded tile (rows, columns, samples), or None if the file leaves it out.

        It may be this thread's scratch memory: used before the next tile is asked for.
        """
        description = self._levels[level]
        if number >= len(description.offsets):
            return None  # Philips files may lack their last row of tiles
        if not description.offsets[number] or not description.lengths[number]:
            return None
        if description.tile[0] * description.tile[1] < LARGE_TILE:
            return self._decode(level, number, index, scratch=True)
        with self._lock:
            kept = self._kept.get((level, number))
            if kept is None:
                kept = self._decode(level, number, index, scratch=False)
                while self._kept and kept.nbytes + self._kept_bytes() > KEPT_BYTES:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[level, number] = kept
            return kept

    def _kept_bytes(self) -> int:
        return sum(pixels.nbytes for pixels in self._kept.values())

    def _place_name(self, level: int, index: tuple[int, int]) -> str:
        return f"{self._path}: the tile in row {index[0]}, column {index[1]} of level {level}"

    def _data(self, level: int, number: int, index: tuple[int, int]) -> bytes:
        """Return the encoded bytes of a tile."""
        description = self._levels[level]
        offset, length = int(description.offsets[number]), int(description.lengths[number])
        try:
            data = os.pread(self._file, length, offset)
        except OSError as error:
            name = self._place_name(level, index)
            raise SlideError(f"{name} can't be read: {error.strerror}") from error
        if len(data) < length or (description.jpeg and not description.jpeg.complete(data)):
            raise SlideError(
                f"{self._place_name(level, index)} is truncated ({len(data)} of {length} bytes at "
                f"offset {offset}); the file is damaged, fetch it again"
            )
        return data

    def _decode(
        self, level: int, number: int, index: tuple[int, int], scratch: bool
    ) -> NDArray[np.uint8]:
        """Return a decoded tile; in this thread's scratch memory if that is allowed and works."""
        description = self._levels[level]
        data = self._data(level, number, index)
        if description.jpeg and scratch:
            pixels = self._scratch((*description.tile, description.samples))
            # Whatever is unusual about a tile, tifffile's decoder has the last word on it.
            with suppress(RuntimeError, ValueError):
                description.jpeg.decode_into(data, pixels)
                return pixels
        try:
            decoded = description.decode(data, number, **description.arguments)[0]
        except (RuntimeError, ValueError) as error:  # what imagecodecs and tifffile raise
            name = self._place_name(level, index)
            raise SlideError(f"{name} can't be decoded: {first_line(error)}") from error
        if decoded is None or decoded.ndim != 4:
            raise SlideError(f"{self._place_name(level, index)} holds no image")
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
        self._close_file()
        self._kept.clear()
        self._memory.clear()


def _first_error(tasks: Sequence[Future[None]]) -> BaseException | None:
    """Wait for all tasks; return what the first of those that failed raised."""
    errors = [task.exception() for task in tasks]
    return next((error for error in errors if error is not None), None)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""Writing a PNG row by row, in memory that doesn't grow with the picture."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from wsi_unet.image_files import PNG_HEAD

TRUECOLOUR = struct.pack(">BBBBB", 8, 2, 0, 0, 0)
"""8 bits per sample, RGB, the only compression and filter methods, not interlaced."""
FILTER_UP = 2
"""The PNG filter that stores each row's difference to the row above, modulo 256."""


class PngWriter:
    """Writes an RGB picture from its first row to its last.

    Args:
        file: where it is written to.
        width: px.
        height: px.
    """

    def __init__(self, file: BinaryIO, width: int, height: int) -> None:
        self._file = file
        self._compressor = zlib.compressobj(level=4, strategy=zlib.Z_FILTERED)
        self._above = np.zeros((1, 3 * width), np.uint8)
        file.write(PNG_HEAD)
        self._write_chunk(b"IHDR", struct.pack(">II", width, height) + TRUECOLOUR)

    def write(self, rows: NDArray[np.uint8]) -> None:
        """Write the next rows, uint8 (rows, width, 3)."""
        if not len(rows):
            return
        samples = rows.reshape(len(rows), -1)
        filtered = np.empty((len(rows), samples.shape[1] + 1), np.uint8)
        filtered[:, 0] = FILTER_UP
        np.subtract(samples, np.concatenate((self._above, samples[:-1])), out=filtered[:, 1:])
        self._above = samples[-1:].copy()
        self._write_data(self._compressor.compress(filtered.data))

    def close(self) -> None:
        """Write what is left, after the last row; the file stays open."""
        self._write_data(self._compressor.flush())
        self._write_chunk(b"IEND", b"")

    def _write_data(self, data: bytes) -> None:
        if data:
            self._write_chunk(b"IDAT", data)

    def _write_chunk(self, kind: bytes, data: bytes) -> None:
        self._file.write(struct.pack(">I", len(data)) + kind)
        self._file.write(data)
        self._file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))

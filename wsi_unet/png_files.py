"""Writing a PNG row by row, in memory that doesn't grow with the picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from wsi_unet.image_files import PNG_HEAD

_COLOUR_TYPES = {1: 0, 3: 2}
"""PNG's number for pictures with so many channels: grey and RGB."""
FILTER_UP = 2
"""The PNG filter that stores each row's difference to the row above, modulo 256."""


class PngWriter:
    """Writes a picture of 8 bits per channel from its first row to its last.

    Args:
        file: where it is written to.
        width: px.
        height: px.
        channels: 1 (grey) or 3 (RGB).
        text: what the file says about itself, by keyword.
    """

    def __init__(
        self,
        file: BinaryIO,
        width: int,
        height: int,
        channels: int = 3,
        text: Mapping[str, str] | None = None,
    ) -> None:
        self._file = file
        self._compressor = zlib.compressobj(level=4, strategy=zlib.Z_FILTERED)
        self._above = np.zeros((1, channels * width), np.uint8)
        file.write(PNG_HEAD)
        # 8 bits, then the only compression and filter methods, not interlaced
        kind = struct.pack(">BBBBB", 8, _COLOUR_TYPES[channels], 0, 0, 0)
        self._write_chunk(b"IHDR", struct.pack(">II", width, height) + kind)
        for keyword, value in (text or {}).items():
            self._write_chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + value.encode())

    def write(self, rows: NDArray[np.uint8]) -> None:
        """Write the next rows, uint8 (rows, width, channels), or (rows, width) of grey."""
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

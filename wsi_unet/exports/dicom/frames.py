"""Tiles of labels as run-length encoded frames, written one after the other."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.pyramids.tiles import TILE, cut_bands, split_band
from wsi_unet.exports.results import ExportedLevel

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_SEGMENTS = struct.pack("<16I", 1, 64, *[0] * 14)
"""Head of a frame: one segment, which begins behind it (PS3.5, annex G.5)."""


def count_tiles(shape: tuple[int, int]) -> int:
    """Return how many frames a level of a shape has."""
    return -(-shape[0] // TILE) * -(-shape[1] // TILE)


def write_frames(
    file: BinaryIO, level: ExportedLevel, not_predicted: int | None, meter: ExportMeter
) -> None:
    """Write the element PixelData: the tiles of a level, row by row.

    The table of offsets, which stands before the frames, is filled in at the end.

    Args:
        file: where.
        level: the labels.
        not_predicted: the value of pixels that the model didn't look at; None: as they are
            stored.
        meter: is told the pixels that are written.
    """
    count = count_tiles(level.shape)
    file.write(b"\xe0\x7f\x10\x00OB\x00\x00" + b"\xff\xff\xff\xff")
    file.write(_ITEM + struct.pack("<I", 4 * count))
    table = file.tell()
    file.write(bytes(4 * count))
    offsets, begin = np.zeros(count, "<u4"), file.tell()
    for number, tile in enumerate(read_tiles(level, not_predicted, meter)):
        offsets[number] = file.tell() - begin
        frame = encode_frame(tile)
        file.write(_ITEM + struct.pack("<I", len(frame)))
        file.write(frame)
    file.write(_END + bytes(4))
    end = file.tell()
    file.seek(table)
    file.write(offsets.tobytes())
    file.seek(end)


def encode_frame(tile: NDArray[np.uint8]) -> bytes:
    """Return a tile (rows, columns) as an RLE Lossless frame of even length."""
    encoded = imagecodecs.packbits_encode(np.ascontiguousarray(tile), axis=-1)
    frame = _SEGMENTS + bytes(encoded)
    return frame + bytes(len(frame) % 2)


def read_tiles(
    level: ExportedLevel, not_predicted: int | None, meter: ExportMeter
) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles of a level, row by row; beyond its edge they are 0."""
    for band in cut_bands(level.shape):
        yield from split_band(level.read_marked(band, not_predicted))
        meter.add(band.area)

"""Where the tiles of a TIFF's levels are, and how they are decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_unet.colour import to_rgb
from wsi_unet.geometry import Shape
from wsi_unet.samples import SampleMeaning
from wsi_unet.slides.sources.source import Range

Decode = Callable[..., tuple[NDArray[np.uint8] | None, Any, Any]]
"""tifffile's `TiffPage.decode`: (data, index, jpegtables=, jpegheader=) to a decoded segment."""

_END_OF_IMAGE = b"\xff\xd9"
_JPEG_HEAD = b"\xff\xd8"
_J2K_HEAD = b"\xff\x4f\xff\x51"
_LONGEST_HEAD = 4096
"""Bytes in front of a JPEG 2000 codestream, at most."""


@dataclass(frozen=True)
class JpegTiles:
    """How a level's JPEG tiles are decoded.

    Attributes:
        tables: quantisation and Huffman tables, if all tiles share them.
        header: what to put before a tile's data, where tiles are pieces of one stream (NDPI).
        colorspace: that of the stream, where the file knows better than the stream (Aperio).
        outcolorspace: the colour space that pixels are converted to.
    """

    tables: bytes | None
    header: bytes | None
    colorspace: int | None
    outcolorspace: int | str | None

    def is_complete(self, data: bytes) -> bool:
        """Return whether a stream has its end marker; libjpeg fills missing rows with grey."""
        return self.header is not None or data.rfind(_END_OF_IMAGE) >= 0

    def decode_into(self, data: bytes, out: NDArray[np.uint8]) -> None:
        """Decode a tile into `out`.

        Raises:
            RuntimeError: the stream is damaged, or libjpeg-turbo doesn't support it.
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


def as_rgb(pixels: NDArray[np.uint8], meaning: SampleMeaning) -> NDArray[np.uint8]:
    """Return decoded pixels (h, w, samples) as RGB (h, w, 3), by what their samples mean."""
    used = pixels[..., : pixels.shape[2] - meaning.ignored]
    return to_rgb(used, premultiplied=meaning.alpha == "premultiplied")


def stream_shape(data: bytes) -> Shape | None:
    """Return (rows, columns) that a JPEG or JPEG 2000 stream says it has; None if it is neither.

    Decoders take memory for whatever it says, be it far more than a tile has.
    """
    start = data.find(_J2K_HEAD, 0, _LONGEST_HEAD)
    if start >= 0 and len(data) >= start + 16:
        columns, rows = struct.unpack_from(">II", data, start + 8)
        return rows, columns
    position = 2 if data.startswith(_JPEG_HEAD) else len(data)
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker, length = struct.unpack_from(">BH", data, position + 1)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            rows, columns = struct.unpack_from(">HH", data, position + 5)
            return rows, columns
        position += 2 + length
    return None


@dataclass(frozen=True, eq=False)
class TiffLevel:
    """Where the tiles of one level are, and how they are decoded.

    Attributes:
        shape: (rows, columns), px of the level.
        tile: (rows, columns) of a tile (or strip), px.
        offsets: position of each tile in the file, row by row, bytes; 0 for a missing tile.
        lengths: length of each tile, bytes; 0 for a missing tile.
        samples: values per pixel.
        meaning: what they are.
        decode: tifffile's decoder for these tiles.
        arguments: further arguments of the decoder: JPEG tables and header.
        jpeg: how to decode JPEG tiles into existing memory; None for other tiles.
        fill: grey level of missing tiles.
    """

    shape: Shape
    tile: Shape
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    samples: int
    meaning: SampleMeaning
    decode: Decode
    arguments: dict[str, bytes]
    jpeg: JpegTiles | None
    fill: int

    @property
    def grid(self) -> Shape:
        """Number of tiles as (rows, columns)."""
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])

    def tile_range(self, number: int) -> Range | None:
        """Return offset and length of a tile's bytes; None if the file leaves the tile out."""
        if number >= len(self.offsets):
            return None  # Philips files may lack their last row of tiles
        offset, length = int(self.offsets[number]), int(self.lengths[number])
        return (offset, length) if offset and length else None

    @property
    def has_gaps(self) -> bool:
        """Whether the file leaves out any tile."""
        tiles = self.grid[0] * self.grid[1]
        return len(self.offsets) < tiles or not (self.offsets.all() and self.lengths.all())

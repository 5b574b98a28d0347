"""Reading what the pages of a TIFF say about its pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, TIFF
from tifffile.tifffile import jpeg_decode_colorspace

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Shape
from wsi_unet.locations import Location
from wsi_unet.samples import JPEG, SampleMeaning
from wsi_unet.slides.readers.tiff_directories import Directory
from wsi_unet.slides.readers.tiff_levels import Decode, JpegTiles, TiffLevel
from wsi_unet.slides.readers.tiff_series import JPEG2000, SEPARATE
from wsi_unet.slides.sources.source import ByteSource

BAND_PIXELS = 1 << 20
"""Pixels of an uncompressed image that are read at once."""

_COMPRESSIONS = {1: "none", 5: "LZW", 7: "JPEG", 8: "Deflate", 32946: "Deflate", 50000: "Zstandard"}
_PIXEL_TAGS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330}
    | {338, 339, 347, 513, 514, 519, 520, 521, 530, 532, 32997, 32998}
)
"""Tags without which pixels can't be read, or would be read wrongly."""


def tile_shape(page: Any) -> Shape:
    """Return (rows, columns) of a page's tiles, or of its strips, px."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def tiff_planes(
    location: Location, level: Any, meaning: SampleMeaning, order: Sequence[int]
) -> tuple[TiffLevel, ...]:
    """Return the tile tables of a level: one, or those of its red, green and blue planes.

    Args:
        location: where the file is.
        level: tifffile's level.
        meaning: what the samples of a pixel mean.
        order: which of the level's pages are red, green and blue; () if it has one page.

    Raises:
        SlideError: a table lacks more than the last row of tiles (which Philips leaves out).
    """
    frame = level.keyframe
    if order:
        return tuple(_one_plane(location, frame, level.pages[number]) for number in order)
    if int(frame.samplesperpixel) > 1 and int(frame.planarconfig) == SEPARATE:
        return tuple(
            _separate_plane(location, frame, level.pages[0], number) for number in range(3)
        )
    return (tiff_level(location, frame, level.pages[0], meaning),)


def _one_plane(location: Location, frame: Any, page: Any) -> TiffLevel:
    if page is None:
        raise SlideError(f"{location}: lacks one of its colours; the file is incomplete")
    return tiff_level(location, frame, page, SampleMeaning(1))


def _separate_plane(location: Location, frame: Any, page: Any, number: int) -> TiffLevel:
    """Return one plane of a page that stores red, green and blue one after the other."""
    whole = _tile_table(location, frame, page, SampleMeaning(1), planes=3)
    tiles = whole.grid[0] * whole.grid[1]
    own = slice(number * tiles, (number + 1) * tiles)
    return replace(
        whole,
        offsets=whole.offsets[own],
        lengths=whole.lengths[own],
        samples=1,
        jpeg=None,
        decode=partial(_decode_plane, whole.decode, number * tiles),
    )


def _decode_plane(
    decode: Decode, first: int, data: bytes, number: int, **arguments: bytes
) -> tuple[NDArray[np.uint8] | None, Any, Any]:
    return decode(data, first + number, **arguments)


def tiff_level(location: Location, frame: Any, page: Any, meaning: SampleMeaning) -> TiffLevel:
    """Return the tile table of a level.

    Args:
        location: where the file is.
        frame: tifffile's keyframe: the page whose tags and decoder hold for the whole level.
        page: the page whose tiles are read; often the same.
        meaning: what the samples of a pixel mean.

    Raises:
        SlideError: the table lacks more than the last row of tiles (which Philips leaves out).
    """
    if _is_contiguous(frame, page):
        return _in_bands(frame, page, meaning)
    return _tile_table(location, frame, page, meaning, planes=1)


def _tile_table(
    location: Location, frame: Any, page: Any, meaning: SampleMeaning, planes: int
) -> TiffLevel:
    arguments = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
    level = TiffLevel(
        shape=(int(frame.imagelength), int(frame.imagewidth)),
        tile=tile_shape(frame),
        offsets=np.asarray(page.dataoffsets, np.int64),
        lengths=np.asarray(page.databytecounts, np.int64),
        samples=int(frame.samplesperpixel),
        meaning=meaning,
        decode=frame.decode,
        arguments={key: value for key, value in arguments.items() if value is not None},
        jpeg=_jpeg(frame, page) if int(frame.compression) in JPEG else None,
        fill=int(frame.nodata),
    )
    rows, columns = level.grid
    known = min(len(level.offsets), len(level.lengths))
    if known < max(1, planes * rows - 1) * columns:
        raise SlideError(
            f"{location}: a level of {rows} x {columns} tiles says where only {known} of them are; "
            "the file is damaged, fetch it again"
        )
    return level


def _is_contiguous(frame: Any, page: Any) -> bool:
    """Return whether a page's pixels lie in the file one after the other, uncompressed."""
    pixels = int(frame.imagelength) * int(frame.imagewidth) * int(frame.samplesperpixel)
    whole = page.dataoffsets[0] > 0 and sum(page.databytecounts) >= pixels
    chunky = int(frame.samplesperpixel) == 1 or int(frame.planarconfig) != SEPARATE
    return whole and chunky and not frame.is_tiled and bool(frame.is_final) and page is frame


def _in_bands(frame: Any, page: Any, meaning: SampleMeaning) -> TiffLevel:
    """Return a level whose pixels lie in the file as they are, cut into bands of some rows.

    Writers make one strip of such an image however large it is, so strips are no measure.
    """
    shape = rows, columns = int(frame.imagelength), int(frame.imagewidth)
    samples = int(frame.samplesperpixel)
    height = min(rows, max(1, BAND_PIXELS // columns))
    starts = np.arange(0, rows, height, dtype=np.int64)
    row_bytes = columns * samples
    return TiffLevel(
        shape=shape,
        tile=(height, columns),
        offsets=int(page.dataoffsets[0]) + starts * row_bytes,
        lengths=np.minimum(height, rows - starts) * row_bytes,
        samples=samples,
        meaning=meaning,
        decode=partial(_decode_band, columns, samples),
        arguments={},
        jpeg=None,
        fill=int(frame.nodata),
    )


def _decode_band(
    columns: int, samples: int, data: bytes, number: int
) -> tuple[NDArray[np.uint8], int, None]:
    return np.frombuffer(data, np.uint8).reshape(1, -1, columns, samples), number, None


def _jpeg(frame: Any, page: Any) -> JpegTiles:
    colorspace, outcolorspace = jpeg_decode_colorspace(
        frame.photometric, frame.planarconfig, frame.extrasamples, frame.is_jfif
    )
    return JpegTiles(page.jpegtables, frame.jpegheader, colorspace, outcolorspace)


def refuse_damaged(source: ByteSource, directories: Sequence[Directory]) -> None:
    """Refuse a file some of whose directories, or tags that pixels need, lie beyond its end.

    Raises:
        SlideError: it was cut off, or is damaged.
    """
    beyond: list[str] = []
    for directory in directories:
        if not directory.complete:
            beyond.append(f"byte {directory.offset} has no whole list of an image's tags")
        beyond += [f"tag {code} can't be read" for code in directory.lost if code in _PIXEL_TAGS]
    _refuse(source, beyond)


def refuse_truncated(source: ByteSource, pages: Sequence[Any]) -> None:
    """Refuse a file some of whose pixels lie beyond its end.

    Args:
        source: the file.
        pages: all its pages.

    Raises:
        SlideError: it was cut off.
    """
    ends = (_end(page) for page in pages)
    _refuse(source, [f"pixels reach to byte {end}" for end in ends if end > source.size])


def _refuse(source: ByteSource, beyond: Sequence[str]) -> None:
    if beyond:
        raise SlideError(
            f"{source.location}: the file is truncated or damaged: it has {source.size} bytes, but "
            f"{beyond[0]}; fetch it again"
        )


def lost_tags(directories: Sequence[Directory]) -> tuple[str, ...]:
    """Return a line for each kind of tag that can't be read and that pixels don't need."""
    codes = {code for directory in directories for code in directory.lost} - _PIXEL_TAGS
    return tuple(
        f"its tag {code} ({TIFF.TAGS.get(code, 'unknown')}) is damaged and was left out"
        for code in sorted(codes)
    )


def _end(page: Any) -> int:
    """Return the offset at which the last of a page's tiles ends."""
    tiles = zip(page.dataoffsets, page.databytecounts, strict=False)
    return max((offset + length for offset, length in tiles if offset and length), default=0)


def layout_bytes(series: Any, pages: Sequence[Any], description: str) -> bytes:
    """Return the metadata and tile tables that identify a slide, as bytes.

    Args:
        series: tifffile's series of the slide itself.
        pages: all pages of the file.
        description: the first image's description.
    """
    described = [
        {
            "shape": [int(side) for side in level.keyframe.shape],
            "tile": tile_shape(level.keyframe),
            "compression": int(level.keyframe.compression),
            "photometric": int(level.keyframe.photometric),
        }
        for level in series.levels
    ]
    head = {"levels": described, "description": description}
    tables = [
        np.asarray(table, "<i8").tobytes()
        for page in pages
        for table in (page.dataoffsets, page.databytecounts)
    ]
    return b"".join([json.dumps(head, sort_keys=True).encode(), *tables])


def compression_name(value: int) -> str:
    """Return the name of a TIFF compression; all kinds of JPEG 2000 have the same."""
    if int(value) in JPEG2000:
        return "JPEG 2000"
    return _COMPRESSIONS.get(int(value)) or COMPRESSION(int(value)).name

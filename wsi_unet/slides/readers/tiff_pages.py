"""Reading what the pages of a TIFF say about its pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC
from tifffile.tifffile import jpeg_decode_colorspace

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Shape
from wsi_unet.locations import Location
from wsi_unet.slides.readers.tiff_levels import JpegTiles, TiffLevel
from wsi_unet.slides.sources.source import ByteSource

BAND_PIXELS = 1 << 20
"""Pixels of an uncompressed image that are read at once."""

_COMPRESSIONS = {1: "none", 5: "LZW", 7: "JPEG", 8: "Deflate", 32946: "Deflate", 50000: "Zstandard"}
_JPEG = frozenset({6, 7, 33007, 34892})
_JPEG2000 = frozenset({33003, 33004, 33005, 34712})
_COLOUR_CONVERTING = _JPEG | _JPEG2000 | {50001, 50002, 52546}
"""Compressions whose decoders convert YCbCr to RGB themselves."""


def refuse_unsuitable(location: Location, page: Any, axes: str) -> None:
    """Refuse pixels that aren't 8-bit grey or RGB.

    Args:
        location: where the file is.
        page: tifffile's page.
        axes: tifffile's axes of the page's series.

    Raises:
        SlideError: they are something else; the message says what.
    """
    photometric = int(page.photometric)
    samples = int(page.samplesperpixel)
    if page.dtype != np.uint8 or page.bitspersample != 8:
        raise SlideError(
            f"{location}: its pixels have {page.bitspersample} bits per sample ({page.dtype}); "
            "only 8 bits are supported, so convert it to 8-bit RGB first"
        )
    if axes not in ("YXS", "YX") or samples > 4:
        raise SlideError(
            f"{location}: its axes are {axes} with {samples} samples per pixel: multi-channel "
            "fluorescence or a stack; only grey and RGB are supported, so export an RGB image first"
        )
    suitable = {PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR}
    converts = photometric != PHOTOMETRIC.YCBCR or int(page.compression) in _COLOUR_CONVERTING
    if photometric not in suitable or not converts:
        raise SlideError(
            f"{location}: colours are stored as {PHOTOMETRIC(photometric).name}, which isn't "
            "supported; convert it to RGB first"
        )


def tile_shape(page: Any) -> Shape:
    """Return (rows, columns) of a page's tiles, or of its strips, px."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def tiff_level(location: Location, frame: Any, page: Any) -> TiffLevel:
    """Return the tile table of a level.

    Args:
        location: where the file is.
        frame: tifffile's keyframe: the page whose tags and decoder hold for the whole level.
        page: the page whose tiles are read; often the same.

    Raises:
        SlideError: the table lacks more than the last row of tiles (which Philips leaves out).
    """
    if _lies_as_it_is(frame, page):
        return _in_bands(frame, page)
    arguments = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
    level = TiffLevel(
        shape=(int(frame.imagelength), int(frame.imagewidth)),
        tile=tile_shape(frame),
        offsets=np.asarray(page.dataoffsets, np.int64),
        lengths=np.asarray(page.databytecounts, np.int64),
        samples=int(frame.samplesperpixel),
        decode=frame.decode,
        arguments={key: value for key, value in arguments.items() if value is not None},
        jpeg=_jpeg(frame, page) if int(frame.compression) in _JPEG else None,
        fill=int(frame.nodata),
    )
    rows, columns = level.grid
    known = min(len(level.offsets), len(level.lengths))
    if known < max(1, rows - 1) * columns:
        raise SlideError(
            f"{location}: a level of {rows} x {columns} tiles says where only {known} of them are; "
            "the file is damaged, fetch it again"
        )
    return level


def _lies_as_it_is(frame: Any, page: Any) -> bool:
    """Return whether a page's pixels lie in the file one after the other."""
    pixels = int(frame.imagelength) * int(frame.imagewidth) * int(frame.samplesperpixel)
    whole = page.dataoffsets[0] > 0 and sum(page.databytecounts) >= pixels
    return whole and not frame.is_tiled and bool(frame.is_final) and page is frame


def _in_bands(frame: Any, page: Any) -> TiffLevel:
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


def refuse_truncated(source: ByteSource, pages: Sequence[Any], warnings: Sequence[str]) -> None:
    """Refuse a file that was cut off.

    Args:
        source: the file.
        pages: all its pages.
        warnings: what tifffile logged; offsets that it calls invalid lie beyond the end.

    Raises:
        SlideError: some of its pixels or tags lie beyond its end.
    """
    size = source.size
    ends = (_end(page) for page in pages)
    beyond = [f"pixels reach to byte {end}" for end in ends if end > size]
    beyond += [f"it says {line}" for line in warnings if "invalid" in line and "offset" in line]
    if beyond:
        raise SlideError(
            f"{source.location}: the file is truncated or damaged: it has {size} bytes, but "
            f"{beyond[0]}; fetch it again"
        )


def _end(page: Any) -> int:
    """Return the offset at which the last of a page's tiles ends."""
    tiles = zip(page.dataoffsets, page.databytecounts, strict=False)
    return max((offset + length for offset, length in tiles if offset and length), default=0)


def layout_bytes(series: Any, pages: Sequence[Any], properties: Mapping[str, Any]) -> bytes:
    """Return the metadata and tile tables that identify a slide, as bytes.

    Args:
        series: tifffile's series of the slide itself.
        pages: all pages of the file.
        properties: tiffslide's properties of the slide.
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
    head = {"levels": described, "description": str(properties.get("tiff.ImageDescription"))}
    tables = [
        np.asarray(table, "<i8").tobytes()
        for page in pages
        for table in (page.dataoffsets, page.databytecounts)
    ]
    return b"".join([json.dumps(head, sort_keys=True).encode(), *tables])


def compression_name(value: int) -> str:
    """Return the name of a TIFF compression; all kinds of JPEG 2000 have the same."""
    if int(value) in _JPEG2000:
        return "JPEG 2000"
    return _COMPRESSIONS.get(int(value)) or COMPRESSION(int(value)).name

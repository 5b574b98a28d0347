"""Whole-slide TIFFs: tiffslide understands the file, `tiff.TileSource` reads its tiles.

What the direct path can't do (slides composed of several images or files) is read by tiffslide
itself.
"""

from __future__ import annotations

import hashlib
import math
import struct
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFileError
from tiffslide import TiffSlide

from wsi_unet import locations
from wsi_unet.colour import to_rgb
from wsi_unet.errors import SlideError, first_line
from wsi_unet.geometry import Box
from wsi_unet.slides.fingerprint import file_digest
from wsi_unet.slides.levels import PixelSize, pyramid
from wsi_unet.slides.library_messages import capture_library_messages
from wsi_unet.slides.readers.tiff_levels import TiffLevel
from wsi_unet.slides.readers.tiff_pages import (
    compression,
    layout,
    refuse_truncated,
    refuse_unsuitable,
    tiff_level,
    tile_shape,
)
from wsi_unet.slides.readers.tiff_tiles import TileSource, default_threads
from wsi_unet.slides.slide import UnknownLayoutError
from wsi_unet.slides.sources.source import ByteSource

_MALFORMED = (
    TiffFileError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    ArithmeticError,
    struct.error,
    ET.ParseError,
)
"""What tifffile and tiffslide raise on files that aren't what their header promises."""


class TiffReader:
    """Reads SVS, NDPI, OME-TIFF and generic (pyramidal) TIFF."""

    name = "tiffslide"

    def __init__(self, source: ByteSource, threads: int | None = None) -> None:
        """Open a TIFF.

        Args:
            source: the file, which the reader owns from here on.
            threads: how many threads decode tiles; a few by default.

        Raises:
            SlideError: the file isn't a readable TIFF of 8-bit grey or RGB pixels.
        """
        self._source = source
        self._lock = threading.Lock()
        self._fallback: TiffSlide | None = None
        self._tiles: TileSource | None = None
        try:
            with capture_library_messages() as complaints, _reading(source, complaints):
                self._open(complaints, threads or default_threads())
        except BaseException:
            source.close()
            raise

    def _open(self, complaints: list[str], threads: int) -> None:
        name = locations.name(self._source.location)
        file: Any = self._source.open()
        slide = TiffSlide(file, tifffile_options={"name": name})
        try:
            levels = self._describe(slide, complaints)
            if levels is None:
                self._fallback = slide
            else:
                self._tiles = TileSource(self._source, levels, threads)
        finally:
            if self._fallback is None:
                slide.close()

    def _describe(self, slide: TiffSlide, complaints: list[str]) -> tuple[TiffLevel, ...] | None:
        """Note what the file says; return the levels for the direct path if it can be taken."""
        properties: dict[str, Any] = slide.properties
        file = slide.ts_tifffile
        series = file.series[properties["tiffslide.series-index"]]
        for level in series.levels:
            refuse_unsuitable(self._source.location, level.keyframe, series.axes)
        refuse_truncated(self._source, list(file.pages), complaints)
        sides = [(rows, columns) for columns, rows in slide.level_dimensions]
        tiles = [tile_shape(level.keyframe) for level in series.levels]
        self.levels = pyramid(sides, tiles)
        self.mpp = _mpp(properties)
        self.vendor = _vendor(slide, properties)
        self.compression = compression(series.levels[0].keyframe.compression)
        self.properties = {
            key: str(value) for key, value in properties.items() if value is not None
        }
        self._digest = hashlib.sha256(layout(series, list(file.pages), properties)).hexdigest()
        composed = properties.get("tiffslide.series-composition") is not None
        if composed or series.is_multifile or series.transform is not None:
            return None
        if any(len(one.pages) != 1 or one.keyframe.imagedepth != 1 for one in series.levels):
            return None
        return tuple(
            tiff_level(self._source.location, one.keyframe, one.pages[0]) for one in series.levels
        )

    @property
    def direct(self) -> bool:
        """Whether tiles are decoded directly rather than by tiffslide."""
        return self._tiles is not None

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box inside an existing level.

        Raises:
            SlideError: the file can't be read or decoded there.
        """
        if self._tiles is not None:
            return self._tiles.read(level, box)
        assert self._fallback is not None
        with self._lock, _reading(self._source):
            pixels = _read_composed(self._fallback, level, box)
        return np.ascontiguousarray(to_rgb(pixels))

    def fingerprint(self) -> str:
        """Return hexadecimal digits of layout, size and both ends of the file.

        Raises:
            SlideError: the file can't be read.
        """
        return file_digest(self._source, self._digest)

    def close(self) -> None:
        """Close the file and stop the threads."""
        if self._tiles is not None:
            self._tiles.close()
        if self._fallback is not None:
            self._fallback.close()
        self._source.close()


@contextmanager
def _reading(source: ByteSource, complaints: Sequence[str] = ()) -> Iterator[None]:
    """Turn what tifffile and tiffslide raise on bad files into a SlideError.

    Args:
        source: the file.
        complaints: what tifffile logged before it raised; says more than the error does.
    """
    try:
        yield
    except SlideError:
        raise
    except OSError as error:
        raise SlideError(f"{source.location}: can't be read: {error.strerror or error}") from error
    except _MALFORMED as error:
        refuse_truncated(source, [], complaints)
        if "axes=" in str(error):
            raise SlideError(
                f"{source.location}: is a stack, or its colours lie in separate planes "
                f"({first_line(error)}); export one RGB image first"
            ) from error
        raise UnknownLayoutError(
            f"{source.location}: tiffslide can't read this TIFF ({first_line(error)}); it may be "
            "damaged, or of a kind that only another reader knows (--reader openslide)"
        ) from error


def _mpp(properties: Mapping[str, Any]) -> PixelSize | None:
    stated = properties.get("tiffslide.mpp-y"), properties.get("tiffslide.mpp-x")
    try:
        y, x = (float(side) for side in stated if side is not None)
    except ValueError:  # one of them is missing, or isn't a number
        return None
    return PixelSize(y, x)


def _vendor(slide: TiffSlide, properties: Mapping[str, Any]) -> str:
    stated = properties.get("tiffslide.vendor")
    if stated:
        return str(stated).lower()
    return "ome-tiff" if slide.ts_tifffile.is_ome else "generic-tiff"


def _read_composed(slide: TiffSlide, level: int, box: Box) -> NDArray[np.uint8]:
    """Read through tiffslide, whose locations are level-0 px that it divides and truncates."""
    factor = slide.level_downsamples[level]

    def location(wanted: int) -> int:
        found = math.ceil(wanted * factor)
        return found if int(found / factor) == wanted else found + 1

    rows, columns = box.shape
    pixels = slide.read_region(
        (location(box.x0), location(box.y0)), level, (columns, rows), as_array=True
    )
    return np.asarray(pixels, np.uint8)

"""Whole-slide TIFFs: tiffslide interprets the file, `tiff_tiles.TileSource` reads its tiles.

Slides that are composed of several images or files are read by tiffslide itself.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiffslide import TiffSlide
from typing_extensions import override

from wsi_unet.colour import to_rgb
from wsi_unet.errors import SlideError, first_line, os_errors_as
from wsi_unet.geometry import Box
from wsi_unet.slides.fingerprint import file_digest
from wsi_unet.slides.levels import PixelSize, make_levels
from wsi_unet.slides.library_messages import capture_library_messages
from wsi_unet.slides.readers.tiff_directories import walk_directories
from wsi_unet.slides.readers.tiff_levels import TiffLevel
from wsi_unet.slides.readers.tiff_pages import (
    compression_name,
    layout_bytes,
    refuse_truncated,
    refuse_unsuitable,
    tiff_level,
    tile_shape,
)
from wsi_unet.slides.readers.tiff_tiles import TileSource
from wsi_unet.slides.slide import Reader, UnknownLayoutError
from wsi_unet.slides.sources.source import ByteSource


class TiffReader(Reader):
    """Reads SVS, NDPI, OME-TIFF and generic (pyramidal) TIFF."""

    name = "tiffslide"

    def __init__(self, source: ByteSource, threads: int | None = None) -> None:
        """Open a TIFF.

        Args:
            source: the file, which the reader owns from here on.
            threads: how many threads decode tiles; None for a few more than there are cores.

        Raises:
            SlideError: the file isn't a readable TIFF of 8-bit grey or RGB pixels.
        """
        self._source = source
        self._lock = threading.Lock()
        self._composed: TiffSlide | None = None
        self._tiles: TileSource | None = None
        try:
            with capture_library_messages() as warnings, _slide_errors(source, warnings):
                self._open(warnings, threads)
        except BaseException:
            source.close()
            raise

    def _open(self, warnings: list[str], threads: int | None) -> None:
        walk_directories(self._source)
        file: Any = self._source.open()
        name = self._source.location.name
        slide = TiffSlide(file, tifffile_options={"name": name})
        try:
            levels = self._keep_metadata(slide, warnings)
            if levels is None:
                self._composed = slide
            else:
                self._tiles = TileSource(self._source, levels, threads)
        finally:
            if self._composed is None:
                slide.close()

    def _keep_metadata(self, slide: TiffSlide, warnings: list[str]) -> tuple[TiffLevel, ...] | None:
        """Keep the file's metadata; return its levels if their tiles can be read directly."""
        properties: dict[str, Any] = slide.properties
        file = slide.ts_tifffile
        series = file.series[properties["tiffslide.series-index"]]
        for level in series.levels:
            refuse_unsuitable(self._source.location, level.keyframe, series.axes)
        refuse_truncated(self._source, list(file.pages), warnings)
        sides = [(rows, columns) for columns, rows in slide.level_dimensions]
        direct = self._direct_levels(series, properties)
        tiles = [level.tile for level in direct or ()]
        self.levels = make_levels(
            sides, tiles or [tile_shape(level.keyframe) for level in series.levels]
        )
        self.mpp = _mpp(properties)
        self.vendor = _vendor(slide, properties)
        self.compression = compression_name(series.levels[0].keyframe.compression)
        self.properties = {
            key: str(value) for key, value in properties.items() if value is not None
        }
        layout = layout_bytes(series, list(file.pages), properties)
        self._digest = hashlib.sha256(layout).hexdigest()
        return direct

    def _direct_levels(
        self, series: Any, properties: Mapping[str, Any]
    ) -> tuple[TiffLevel, ...] | None:
        """Return the levels if their tiles can be read directly, None if tiffslide must."""
        composed = properties.get("tiffslide.series-composition") is not None
        if composed or series.is_multifile or series.transform is not None:
            return None
        if any(len(level.pages) != 1 or level.keyframe.imagedepth != 1 for level in series.levels):
            return None
        return tuple(
            tiff_level(self._source.location, level.keyframe, level.pages[0])
            for level in series.levels
        )

    @property
    def direct(self) -> bool:
        """Whether tiles are read directly rather than by tiffslide."""
        return self._tiles is not None

    @override
    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        if self._tiles is not None:
            return self._tiles.read(level, box)
        assert self._composed is not None
        with self._lock, _slide_errors(self._source):
            pixels = _read_composed(self._composed, level, box)
        return np.ascontiguousarray(to_rgb(pixels))

    @override
    def fingerprint(self) -> str:
        return file_digest(self._source, self._digest)

    @override
    def close(self) -> None:
        if self._tiles is not None:
            self._tiles.close()
        if self._composed is not None:
            self._composed.close()
        self._source.close()


@contextmanager
def _slide_errors(source: ByteSource, warnings: Sequence[str] = ()) -> Iterator[None]:
    """Turn whatever tifffile and tiffslide raise into a SlideError that says what to do.

    Args:
        source: the file.
        warnings: what tifffile logged before; it says more than the error does.
    """
    try:
        with os_errors_as(SlideError, source.location):
            yield
    except SlideError:
        raise
    except Exception as error:  # damaged and forged files make them raise anything
        refuse_truncated(source, [], warnings)
        if "axes=" in str(error):
            raise SlideError(
                f"{source.location}: is a stack, or its colours lie in separate planes "
                f"({first_line(error)}); export one RGB image first"
            ) from error
        raise UnknownLayoutError(
            f"{source.location}: tiffslide can't read this TIFF ({first_line(error)}); it may be "
            "damaged, or of a kind that only another reader knows (`reader='openslide'`)"
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
    """Read through tiffslide, which divides level-0 positions by a downsample and truncates."""
    factor = slide.level_downsamples[level]

    def level0(position: int) -> int:
        candidate = math.ceil(position * factor)
        return candidate if int(candidate / factor) == position else candidate + 1

    rows, columns = box.shape
    origin = level0(box.x0), level0(box.y0)
    pixels = slide.read_region(origin, level, (columns, rows), as_array=True)
    return np.asarray(pixels, np.uint8)

"""Whole-slide TIFFs: tiffslide understands the file, `tiff.TileSource` reads its tiles.

What the direct path can't do (slides composed of several images or files) is read by tiffslide
itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import struct
import threading
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFileError
from tiffslide import TiffSlide

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box, Shape
from wsi_unet.slides.colour import to_rgb
from wsi_unet.slides.fingerprint import file_digest
from wsi_unet.slides.slide import Level, PixelSize, pyramid
from wsi_unet.slides.tiff import TiffLevel, TileSource, default_threads, first_line

_OPENING = threading.Lock()
_KNOWN_WARNINGS = (
    "hamamatsu-format metadata parsing only partially implemented",
    "no special ventana-format metadata parsing implemented yet",
)
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
    MemoryError,
    struct.error,
    ET.ParseError,
)
"""What tifffile and tiffslide raise on files that aren't what their header promises."""

_COMPRESSIONS = {1: "none", 5: "LZW", 7: "JPEG", 8: "Deflate", 32946: "Deflate", 50000: "Zstandard"}
_JPEG = frozenset({6, 7, 33007, 34892})
_JPEG2000 = frozenset({33003, 33004, 33005, 34712})
_COLOUR_CONVERTING = _JPEG | _JPEG2000 | {50001, 50002, 52546}
"""Compressions whose decoders turn YCbCr into RGB themselves."""


class TiffReader:
    """Reads SVS, NDPI, OME-TIFF and generic (pyramidal) TIFF."""

    name = "tiffslide"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Open a TIFF.

        Args:
            path: the file.
            threads: how many threads decode tiles; a few by default.

        Raises:
            SlideError: the file isn't a readable TIFF of 8-bit grey or RGB pixels.
        """
        self._path = path
        self._fallback: TiffSlide | None = None
        self._tiles: TileSource | None = None
        slide = _open(path)
        try:
            self._describe(slide)
            levels = self._tiff_levels(slide)
            if levels is None:
                self._fallback = slide
            else:
                self._tiles = TileSource(path, levels, threads or default_threads())
        finally:
            if self._fallback is None:
                slide.close()

    def _describe(self, slide: TiffSlide) -> None:
        with _reading(self._path):
            properties: dict[str, Any] = slide.properties
            series = slide.ts_tifffile.series[properties["tiffslide.series-index"]]
            pages = [level.pages[0] for level in series.levels]
            frames = [level.keyframe for level in series.levels]
            for frame in frames:
                _refuse_unsuitable(self._path, frame, series.axes)
            composed = properties.get("tiffslide.series-composition") is not None
            sides = [(rows, columns) for columns, rows in slide.level_dimensions]
            tiles = [_tile(frame) for frame in frames]
            self._levels = pyramid(
                sides, tiles if len(tiles) == len(sides) else [(512, 512)] * len(sides)
            )
            self._mpp = _mpp(properties)
            self._vendor = _vendor(slide, properties)
            self._compression = _compression(frames[0].compression)
            self._composed = composed
            self._properties = {
                key: str(value) for key, value in properties.items() if value is not None
            }
            self._digest = hashlib.sha256(_layout(frames, pages, properties)).hexdigest()

    def _tiff_levels(self, slide: TiffSlide) -> tuple[TiffLevel, ...] | None:
        """Return the levels for the direct path, or None where tiffslide must read itself."""
        if self._composed:
            return None
        with _reading(self._path):
            file = slide.ts_tifffile
            series = file.series[slide.properties["tiffslide.series-index"]]
            if series.is_multifile or series.transform is not None:
                return None
            levels = []
            for level in series.levels:
                if len(level.pages) != 1 or level.keyframe.imagedepth != 1:
                    return None
                levels.append(_tiff_level(level.keyframe, level.pages[0]))
        size = self._path.stat().st_size
        for index, one in enumerate(levels):
            end = int((one.offsets + one.lengths).max(initial=0))
            if end > size:
                raise SlideError(
                    f"{self._path}: the file is truncated: it has {size} bytes, but level {index} "
                    f"reaches to byte {end}; fetch it again"
                )
        return tuple(levels)

    @property
    def vendor(self) -> str | None:
        """Who made the file."""
        return self._vendor

    @property
    def compression(self) -> str | None:
        """How level 0 is compressed."""
        return self._compression

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest level first."""
        return self._levels

    @property
    def mpp(self) -> PixelSize | None:
        """µm per level-0 px as the file states it."""
        return self._mpp

    @property
    def properties(self) -> Mapping[str, str]:
        """What tiffslide found in the file."""
        return self._properties

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
        with _reading(self._path):
            pixels = _read_composed(self._fallback, level, box)
        return np.ascontiguousarray(to_rgb(pixels))

    def fingerprint(self) -> str:
        """Return hexadecimal digits of layout, size and both ends of the file.

        Raises:
            SlideError: the file can't be read.
        """
        return file_digest(self._path, self._digest)

    def close(self) -> None:
        """Close the file and stop the threads."""
        if self._tiles is not None:
            self._tiles.close()
        if self._fallback is not None:
            self._fallback.close()


def _open(path: Path) -> TiffSlide:
    """Return an open TiffSlide whose properties have been parsed."""
    with _reading(path), _quiet() as complaints:
        try:
            slide = TiffSlide(path)
        except TiffFileError as error:
            raise SlideError(f"{path}: not a readable TIFF: {first_line(error)}") from error
        try:
            if not slide.ts_tifffile.series:
                raise TiffFileError("it holds no image")
            # Cached by the slide; parsed here, where warnings and log lines are kept quiet.
            slide.properties  # noqa: B018
        except BaseException:
            slide.close()
            if complaints:
                raise SlideError(
                    f"{path}: the TIFF is damaged or incomplete ({complaints[0]}); fetch it again"
                ) from None
            raise
    return slide


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what tifffile and tiffslide raise on bad files into a SlideError."""
    try:
        yield
    except SlideError:
        raise
    except OSError as error:
        raise SlideError(f"{path}: can't be read: {error.strerror or error}") from error
    except _MALFORMED as error:
        raise SlideError(
            f"{path}: tiffslide can't read this TIFF ({first_line(error)}); it may be damaged, "
            "or of a kind that only another reader knows (--reader openslide)"
        ) from error


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Silence tiffslide's standing warnings and collect what tifffile would log.

    Warning filters belong to the whole process, hence the lock.
    """
    logger = logging.getLogger("tifffile")
    collector = _Collector()
    with _OPENING, warnings.catch_warnings():
        for message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(collector)
        try:
            yield collector.lines
        finally:
            logger.removeHandler(collector)
            logger.propagate = propagate


class _Collector(logging.Handler):
    """Keeps the first line of each message."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage().splitlines()[0])


def _refuse_unsuitable(path: Path, page: Any, axes: str) -> None:
    """Refuse pixels that aren't 8-bit grey or RGB.

    Raises:
        SlideError: says what they are instead.
    """
    photometric = int(page.photometric)
    samples = int(page.samplesperpixel)
    if page.dtype != np.uint8 or page.bitspersample != 8:
        raise SlideError(
            f"{path}: its pixels have {page.bitspersample} bits per sample ({page.dtype}); only 8 "
            "bits are supported, so convert it to 8-bit RGB first"
        )
    if axes not in ("YXS", "YX", "CYX") or (axes == "CYX" and samples == 1) or samples > 4:
        raise SlideError(
            f"{path}: its axes are {axes} with {samples} samples per pixel: multi-channel "
            "fluorescence or a stack; only grey and RGB are supported, so export an RGB image first"
        )
    suitable = {PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR}
    converts = photometric != PHOTOMETRIC.YCBCR or int(page.compression) in _COLOUR_CONVERTING
    if photometric not in suitable or not converts:
        raise SlideError(
            f"{path}: colours are stored as {PHOTOMETRIC(photometric).name}, which isn't "
            "supported; convert it to RGB first"
        )


def _tile(page: Any) -> Shape:
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def _tiff_level(frame: Any, page: Any) -> TiffLevel:
    arguments = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
    return TiffLevel(
        shape=(int(frame.imagelength), int(frame.imagewidth)),
        tile=_tile(frame),
        planes=int(frame.samplesperpixel) if int(frame.planarconfig) == 2 else 1,
        offsets=np.asarray(page.dataoffsets, np.int64),
        lengths=np.asarray(page.databytecounts, np.int64),
        decode=frame.decode,
        arguments={key: value for key, value in arguments.items() if value is not None},
        ends_in_marker=int(frame.compression) in _JPEG and frame.jpegheader is None,
        fill=int(frame.nodata),
    )


def _layout(frames: list[Any], pages: list[Any], properties: Mapping[str, Any]) -> bytes:
    """Return the metadata and tile tables that make a slide what it is."""
    described = [
        {
            "shape": [int(side) for side in frame.shape],
            "tile": _tile(frame),
            "compression": int(frame.compression),
            "photometric": int(frame.photometric),
        }
        for frame in frames
    ]
    head = {"levels": described, "description": str(properties.get("tiff.ImageDescription"))}
    tables = [
        np.asarray(table, "<i8").tobytes()
        for page in pages
        for table in (page.dataoffsets, page.databytecounts)
    ]
    return b"".join([json.dumps(head, sort_keys=True).encode(), *tables])


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


def _compression(value: int) -> str:
    if int(value) in _JPEG2000:
        return "JPEG 2000"
    return _COMPRESSIONS.get(int(value)) or COMPRESSION(int(value)).name


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

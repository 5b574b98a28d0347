"""Whole-slide TIFFs: tifffile finds their images, `tiff_tiles.TileSource` reads their tiles.

What vendors say beside the pixels is told by tiffslide, which also reads slides that are composed
of several images or files.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiffslide import TiffSlide
from typing_extensions import override

from wsi_unet.errors import SlideError, first_line, foreign_errors_as
from wsi_unet.geometry import Box
from wsi_unet.samples import (
    UPRIGHT,
    SampleMeaning,
    UnclearSamplesError,
    page_orientation,
)
from wsi_unet.slides.fingerprint import file_digest
from wsi_unet.slides.levels import find_origin, make_levels
from wsi_unet.slides.library_messages import silence_libraries
from wsi_unet.slides.pixel_size import choose_size
from wsi_unet.slides.readers.tiff_directories import Directory, walk_directories
from wsi_unet.slides.readers.tiff_levels import TiffLevel, as_rgb
from wsi_unet.slides.readers.tiff_ome import read_ome_images
from wsi_unet.slides.readers.tiff_pages import (
    compression_name,
    layout_bytes,
    lost_tags,
    refuse_damaged,
    refuse_truncated,
    tiff_planes,
    tile_shape,
)
from wsi_unet.slides.readers.tiff_pixel_size import (
    misunderstood_sizes,
    pixel_size_statements,
    text_of,
)
from wsi_unet.slides.readers.tiff_series import (
    SeriesPixels,
    describe_series,
    fill_gaps,
    read_pixels,
)
from wsi_unet.slides.readers.tiff_tiles import TileSource
from wsi_unet.slides.series import choose_series, largest_series, mention_others
from wsi_unet.slides.slide import Reader, UnknownLayoutError
from wsi_unet.slides.sources.source import ByteSource

_DESCRIPTION = 270
_SERIES = "tiffslide.series-index"
_VENDORS = {"is_svs": "aperio", "is_ndpi": "hamamatsu", "is_philips": "philips"}
_VENDORS |= {"is_scn": "leica", "is_bif": "ventana", "is_ome": "ome-tiff"}
"""Who made a file, by what tifffile recognises."""
_NO_DESCRIPTION = {"is_shaped": False, "is_ome": False, "is_imagej": False}
"""Options that let tifffile read pages as they are, for descriptions that aren't a vendor's."""


class TiffReader(Reader):
    """Reads SVS, NDPI, OME-TIFF and generic (pyramidal) TIFF."""

    name = "tiffslide"

    def __init__(
        self, source: ByteSource, series: str | None = None, *, threads: int | None = None
    ) -> None:
        """Open a TIFF.

        Args:
            source: the file, which the reader owns from here on.
            series: number or name of the image to read; None for the largest.
            threads: how many threads decode tiles; None for a few more than there are cores.

        Raises:
            SlideError: the file isn't a readable TIFF of 8-bit grey or RGB pixels.
            UnknownLayoutError: another reader might read it.
        """
        self._source = source
        self._location = source.location
        self._lock = threading.Lock()
        self._composed: TiffSlide | None = None
        self._tiles: TileSource | None = None
        self._unread: tuple[str, ...] = ()
        try:
            unknown = f"{source.location}: tiffslide can't read this TIFF, damaged or of a kind "
            with (
                silence_libraries(),
                foreign_errors_as(UnknownLayoutError, unknown + "that another `reader` may know"),
            ):
                self._open(series, threads)
        except BaseException:
            source.close()
            raise

    def _open(self, series: str | None, threads: int | None) -> None:
        directories = walk_directories(self._source)
        refuse_damaged(self._source, directories)
        slide = self._open_tifffile({"name": self._location.name})
        try:
            levels = self._keep_metadata(slide, directories, series)
            if levels is None:
                self._composed = slide
            else:
                self._tiles = TileSource(self._source, levels, threads)
        finally:
            if self._composed is None:
                slide.close()

    def _open_tifffile(self, options: dict[str, Any]) -> TiffSlide:
        """Return the file, opened by tifffile; without its description if that misleads it."""
        file: Any = self._source.open()
        slide = TiffSlide(file, tifffile_options=options)
        try:
            first: Any = slide.ts_tifffile.pages.first
            # By it tifffile recognises vendors, and takes it only where it is Unicode.
            first.description = first.description or text_of(first, _DESCRIPTION)
            _ = slide.ts_tifffile.series
        except Exception as error:  # whatever a damaged description leads to
            slide.close()
            if _NO_DESCRIPTION.items() <= options.items():
                raise
            self._unread = (f"its description can't be used ({first_line(error)})",)
            return self._open_tifffile(options | _NO_DESCRIPTION)
        return slide

    def _keep_metadata(
        self, slide: TiffSlide, directories: list[Directory], wanted: str | None
    ) -> tuple[tuple[TiffLevel, ...], ...] | None:
        """Keep the file's metadata; return its levels if their tiles can be read directly."""
        tiff: Any = slide.ts_tifffile
        pages = list(tiff.pages)
        refuse_truncated(self._source, pages)
        self.warnings = lost_tags(directories)
        description = text_of(pages[0], _DESCRIPTION)
        # The images of a Leica SCN are parts of one slide, which tiffslide puts together.
        composed = tiff.is_scn and wanted is None
        properties = self._read_properties(slide, required=composed)
        pixels = self._choose_series(tiff, properties, wanted, composed=composed)
        frame = pixels.series.keyframe
        direct = None if composed else self._direct_levels(pixels)
        if direct is None and pixels.number != properties.get(_SERIES):
            raise SlideError(f"{self._location}: `series` can't be chosen in a TIFF of this kind")
        sides = [level.shape for (level, *_) in direct or ()] or [
            (rows, columns) for columns, rows in slide.level_dimensions
        ]
        tiles = [level.tile for (level, *_) in direct or ()] or [
            tile_shape(level.keyframe) for level in pixels.series.levels
        ]
        self.levels = make_levels(sides, tiles)
        if composed:  # else the pixels are those of one image, which begins at its own corner
            self.origin = find_origin(properties, "tiffslide", self.levels[0].shape)
        whole = wanted is None or pixels.number == largest_series(self.series)
        self._keep_size(tiff, pixels, properties, whole=whole)
        self.vendor = _vendor(tiff, properties)
        self.compression = compression_name(frame.compression)
        own = pixels.number == properties.get(_SERIES)
        self.properties = {
            key: str(value)
            for key, value in properties.items()
            if value is not None and (own or not key.startswith(("tiffslide.", "tiff.")))
        }
        self.orientation = page_orientation(frame)
        self.warnings = self.warnings or self._unread
        self._meaning = pixels.meaning
        self.colours = pixels.meaning.colours
        layout = layout_bytes(pixels.series, pages, description)
        changed = _changed_meaning(pixels.meaning, direct, self.orientation)
        self._digest = hashlib.sha256(layout + changed).hexdigest()
        return direct

    def _read_properties(self, slide: TiffSlide, *, required: bool) -> dict[str, Any]:
        """Return what tiffslide understands of the vendor's descriptions; pixels don't need it."""
        try:
            return dict(slide.properties)
        except NotImplementedError:  # axes of length one, or colours in planes
            if required:
                raise
        except Exception:  # whatever it raises on damaged descriptions
            if required:
                raise
            self._unread = ("what its maker says beside its pixels can't all be understood",)
        return {}

    def _choose_series(
        self, tiff: Any, properties: Mapping[str, Any], wanted: str | None, *, composed: bool
    ) -> SeriesPixels:
        xml = tiff.ome_metadata if tiff.is_ome else None
        images = read_ome_images(xml) if xml else []
        if xml and not images:
            self.warnings += ("its OME-XML describes no image and was left out",)
        self.series = tuple(describe_series(tiff, images))
        try:
            number = int(properties[_SERIES]) if composed else choose_series(self.series, wanted)
            pixels = read_pixels(tiff.series[number], number, images)
        except (SlideError, UnclearSamplesError) as error:
            raise SlideError(f"{self._location}: {error}") from error
        self._check_place(tiff, pixels)
        if images and pixels.ome is None:
            self.warnings += ("its OME-XML describes no image of this size and was left out",)
        for series in tiff.series if composed else [pixels.series]:
            fill_gaps(series, pixels.meaning)
        if wanted is None and not composed:
            self.warnings += mention_others(self.series, number)
        if pixels.meaning.ignored:
            self.warnings += ("its fourth channel isn't stated to be alpha and was left out",)
        return pixels

    def _check_place(self, tiff: Any, pixels: SeriesPixels) -> None:
        """Refuse an image all of whose pixels are in another file, which the OME-XML names."""
        there = pixels.series.keyframe.parent
        if there is not tiff and not pixels.series.is_multifile:
            raise SlideError(
                f"{self._location}: its pixels are in another file; give the path of "
                f"{there.filehandle.name}"
            )

    def _direct_levels(self, pixels: SeriesPixels) -> tuple[tuple[TiffLevel, ...], ...] | None:
        """Return the levels if their tiles can be read directly, None if tiffslide must."""
        if pixels.series.is_multifile or pixels.series.transform is not None:
            return None
        return tuple(
            tiff_planes(self._location, level, pixels.meaning, pixels.planes)
            for level in pixels.series.levels
        )

    def _keep_size(
        self, tiff: Any, pixels: SeriesPixels, properties: Mapping[str, Any], *, whole: bool
    ) -> None:
        frame = pixels.series.keyframe
        statements = pixel_size_statements(tiff, frame, pixels.ome, properties, whole=whole)
        self.mpp, contradictions = choose_size(statements)
        self.warnings += contradictions or (
            () if self.mpp else misunderstood_sizes(frame, pixels.ome)
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
        with self._lock:
            pixels = _read_composed(self._composed, level, box)
        return np.ascontiguousarray(as_rgb(pixels, self._meaning))

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


def _changed_meaning(
    meaning: SampleMeaning, direct: tuple[tuple[TiffLevel, ...], ...] | None, orientation: int
) -> bytes:
    """Return what earlier versions read differently, so that their runs aren't resumed.

    They showed gaps black, multiplied premultiplied colours by alpha, and turned no image.
    """
    gaps = meaning.colours == 3 and (
        direct is None or any(level.has_gaps for planes in direct for level in planes)
    )
    facts = {
        "white gaps": gaps,
        "premultiplied": meaning.alpha == "premultiplied",
        "ignored": meaning.ignored,
        "orientation": orientation if orientation != UPRIGHT else 0,
    }
    return "".join(f"{name} {value} " for name, value in facts.items() if value).encode()


def _vendor(tiff: Any, properties: Mapping[str, Any]) -> str:
    stated = properties.get("tiffslide.vendor")
    if stated:
        return str(stated).lower()
    return next((name for kind, name in _VENDORS.items() if getattr(tiff, kind)), "generic-tiff")


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

"""MRXS, VMS, SCN, BIF and other formats that aren't plain TIFF, read by OpenSlide."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping

import numpy as np
import openslide
from numpy.typing import NDArray
from typing_extensions import override

from wsi_unet.colour import to_rgb
from wsi_unet.errors import SlideError, os_errors_as
from wsi_unet.geometry import Box
from wsi_unet.locations import Location
from wsi_unet.slides.fingerprint import path_digest
from wsi_unet.slides.levels import PixelSize, find_origin, make_levels
from wsi_unet.slides.pixel_size import choose_size, parse_number, stated_size
from wsi_unet.slides.slide import Reader

PIECE_SIDE = 512
"""Side of the squares in which coarse levels are read, px of the level."""


class OpenSlideReader(Reader):
    """Reads through OpenSlide; areas that weren't scanned are white."""

    name = "openslide"

    def __init__(self, location: Location) -> None:
        """Open a slide.

        Raises:
            SlideError: OpenSlide doesn't know the format, or the file is damaged.
        """
        self._path = location.path
        self._lock = threading.Lock()
        self._slide = self._open()
        try:
            self._keep_metadata()
        except BaseException:
            self._slide.close()
            raise

    def _keep_metadata(self) -> None:
        properties = dict(self._slide.properties)
        sides = [(rows, columns) for columns, rows in self._slide.level_dimensions]
        tiles = [
            (
                int(properties.get(f"openslide.level[{level}].tile-height", 256)),
                int(properties.get(f"openslide.level[{level}].tile-width", 256)),
            )
            for level in range(len(sides))
        ]
        self.levels = make_levels(sides, tiles)
        self.properties: Mapping[str, str] = properties
        self.vendor = properties.get("openslide.vendor")
        self.compression = None
        self.mpp = _mpp(properties)
        self.origin = find_origin(properties, "openslide", self.levels[0].shape)

    def _open(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(self._path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise SlideError(f"{self._path}: isn't a slide that OpenSlide knows") from error

    @override
    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box: the same pixel has the same value in every window.

        OpenSlide takes positions in level-0 px. To OpenSlide, a coarse level's downsample is rarely
        an exact integer, so most of that level's pixels lie between positions, and it interpolates
        differently from each position. Coarse levels are therefore put together from the squares of
        one fixed grid, each of which is always read from its own corner.
        """
        if level == 0:
            return self._region(level, box)
        whole = Box.from_shape(self.levels[level].shape)
        result = np.empty((*box.shape, 3), np.uint8)
        first, left = box.y0 // PIECE_SIDE * PIECE_SIDE, box.x0 // PIECE_SIDE * PIECE_SIDE
        for tile in Box(first, left, box.y1, box.x1).tiles(PIECE_SIDE):
            square = Box(tile.y0, tile.x0, tile.y0 + PIECE_SIDE, tile.x0 + PIECE_SIDE)
            piece = square.intersection(whole)
            common = piece.intersection(box)
            pixels = self._region(level, piece)
            result[common.relative_to(box).slices()] = pixels[common.relative_to(piece).slices()]
        return result

    def _region(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box, read by a single call of OpenSlide."""
        with self._lock:
            slide = self._slide
        factor = slide.level_downsamples[level]
        rows, columns = box.shape
        origin = round(box.x0 * factor), round(box.y0 * factor)
        try:
            region = slide.read_region(origin, level, (columns, rows))
        except openslide.OpenSlideError:
            self._replace(slide)
            raise
        return np.ascontiguousarray(to_rgb(np.asarray(region)))

    def _replace(self, broken: openslide.OpenSlide) -> None:
        """Reopen the slide: after an error OpenSlide refuses to use a handle any more."""
        with self._lock:
            if self._slide is broken:
                self._slide = self._open()

    @override
    def fingerprint(self) -> str:
        """Return a hash of the file, its properties and the sizes of its companion files."""
        folder = self._path.with_suffix("")  # where MRXS and others keep their pixels
        with os_errors_as(SlideError, folder):
            files = sorted(folder.rglob("*")) if folder.is_dir() else []
            sizes = [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]
        return path_digest(self._path, json.dumps([self.properties, sizes], sort_keys=True))

    @override
    def close(self) -> None:
        self._slide.close()


def _mpp(properties: dict[str, str]) -> PixelSize | None:
    y, x = (parse_number(properties.get(f"openslide.mpp-{axis}")) for axis in "yx")
    return choose_size(stated_size("OpenSlide", y, x))[0]

"""Reading a slide at any pixel size, and mirroring it beyond its edges.

The filter that resamples pixels is in `antialias`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from wsi_unet.geometry import Box, Shape, reflect
from wsi_unet.slides.antialias import dyadic, resample
from wsi_unet.slides.levels import Level, LevelSource


class Raster(Protocol):
    """RGB pixels on one grid."""

    @property
    def shape(self) -> Shape:
        """(rows, columns), px of the grid."""

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) uint8 of a box inside the grid."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """How one grid of pixels is made from a slide.

    Attributes:
        level: the level that is read.
        ratio: (y, x) px of that level per grid px, dyadic; (1.0, 1.0) reads the level as it is.
        shape: (rows, columns) of the grid, px.
        downsample: (y, x) level-0 px per grid px.
    """

    level: int
    ratio: tuple[float, float]
    shape: Shape
    downsample: tuple[float, float]


def choose_resampling(
    slide: LevelSource, downsample: tuple[float, float], tolerance: float = 0.01
) -> Resampling:
    """Choose the level to read, and how to resample it, for a wanted pixel size.

    Args:
        slide: the slide; only its `levels` are used.
        downsample: (y, x) level-0 px per wanted px.
        tolerance: by what share a level's pixel size may differ and still be read as it is.

    Returns:
        A plain read if a level has the wanted pixel size; else a resampling of the coarsest
        level that isn't coarser; else of level 0, which is enlarged. `downsample` of the result
        is that of the grid itself: ratios are rounded to dyadic numbers (by < 0.025 %).

    Raises:
        ValueError: a downsample isn't a positive number.
    """
    if not all(side > 0 and math.isfinite(side) for side in downsample):
        raise ValueError(f"a downsample must be a positive number, not {downsample}")
    chosen = 0
    for index, level in enumerate(slide.levels):
        if all(side >= 1 - tolerance for side in _quotient(downsample, level)):
            chosen = index
    level = slide.levels[chosen]
    wanted = _quotient(downsample, level)
    if all(abs(side - 1) <= tolerance for side in wanted):
        return Resampling(chosen, (1.0, 1.0), level.shape, level.downsample)
    ratio = (dyadic(wanted[0]), dyadic(wanted[1]))
    return Resampling(
        level=chosen,
        ratio=ratio,
        shape=(math.ceil(level.shape[0] / ratio[0]), math.ceil(level.shape[1] / ratio[1])),
        downsample=(level.downsample[0] * ratio[0], level.downsample[1] * ratio[1]),
    )


def _quotient(downsample: tuple[float, float], level: Level) -> tuple[float, float]:
    return downsample[0] / level.downsample[0], downsample[1] / level.downsample[1]


def open_raster(slide: LevelSource, resampling: Resampling) -> Raster:
    """Return the raster that a resampling describes; reading it reads the slide.

    Raises:
        ValueError: the slide has no such level, or the ratio isn't one of `dyadic`.
    """
    if not 0 <= resampling.level < len(slide.levels):
        raise ValueError(f"{slide} has no level {resampling.level}")
    if resampling.ratio == (1.0, 1.0):
        return LevelRaster(slide, resampling.level)
    if any(dyadic(ratio) != ratio for ratio in resampling.ratio):
        raise ValueError(f"ratio {resampling.ratio} isn't exact; take it from choose_resampling")
    return ResampledRaster(slide, resampling)


@dataclass(frozen=True, slots=True)
class LevelRaster(Raster):
    """A level as it is."""

    slide: LevelSource
    level: int

    @property
    @override
    def shape(self) -> Shape:
        return self.slide.levels[self.level].shape

    @override
    def read(self, box: Box) -> NDArray[np.uint8]:
        return self.slide.read(self.level, box)


@dataclass(frozen=True, slots=True)
class ResampledRaster(Raster):
    """A level that is resampled when it is read."""

    slide: LevelSource
    resampling: Resampling

    @property
    @override
    def shape(self) -> Shape:
        return self.resampling.shape

    @override
    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box; beside the result, memory is bounded.

        Raises:
            ValueError: the box is empty or reaches beyond the grid.
            SlideError: the slide can't be read there.
        """
        if not box.area or not Box.from_shape(self.shape).contains(box):
            raise ValueError(f"{box} is empty or reaches beyond the grid of shape {self.shape}")
        return resample(self.slide, self.resampling.level, self.resampling.ratio, box)


def read_mirrored(raster: Raster, window: Box) -> NDArray[np.uint8]:
    """Return a window that may reach beyond the raster on any side, however far.

    Args:
        raster: the pixels.
        window: px of the raster's grid, not empty.

    Returns:
        RGB (h, w, 3) uint8; outside, the raster is mirrored without repeating its edge pixel
        (numpy's `reflect`). No pixels are read but those that occur in the window.

    Raises:
        ValueError: the window is empty.
        SlideError: the slide can't be read there.
    """
    if not window.area:
        raise ValueError(f"nothing to read: {window} is empty")
    height, width = raster.shape
    if Box.from_shape(raster.shape).contains(window):
        return raster.read(window)
    rows = reflect(window.y0, window.y1, height)
    columns = reflect(window.x0, window.x1, width)
    y0, x0 = int(rows.min()), int(columns.min())
    pixels = raster.read(Box(y0, x0, int(rows.max()) + 1, int(columns.max()) + 1))
    if window.x0 < 0 or window.x1 > width:
        pixels = _gather_columns(pixels, columns - x0)
    if window.y0 < 0 or window.y1 > height:
        pixels = pixels[rows - y0]
    return pixels


def _gather_columns(pixels: NDArray[np.uint8], columns: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return pixels[:, columns], with the longest ascending run of columns copied in one go."""
    result = np.empty((len(pixels), len(columns), 3), np.uint8)
    breaks = np.flatnonzero(np.diff(columns) != 1) + 1
    edges = [0, *breaks.tolist(), len(columns)]
    lengths = np.diff(edges)
    longest = int(lengths.argmax())
    start, stop = edges[longest], edges[longest + 1]
    source = int(columns[start])
    result[:, start:stop] = pixels[:, source : source + stop - start]
    result[:, :start] = pixels[:, columns[:start]]
    result[:, stop:] = pixels[:, columns[stop:]]
    return result


def read_thumbnail(slide: LevelSource, max_side: int) -> NDArray[np.uint8]:
    """Return the whole slide, reduced (never enlarged) to at most `max_side` px per side.

    Returns:
        RGB (h, w, 3) uint8.

    Raises:
        ValueError: `max_side` is less than 1.
        SlideError: the slide can't be read.
    """
    if max_side < 1:
        raise ValueError(f"a thumbnail needs at least 1 px per side, not {max_side}")
    downsample = max(1.0, max(slide.levels[0].shape) / max_side)
    resampling = choose_resampling(slide, (downsample, downsample), tolerance=0.0)
    raster = open_raster(slide, resampling)
    rows, columns = (min(side, max_side) for side in raster.shape)
    return raster.read(Box(0, 0, rows, columns))

"""Reading a slide at any pixel size, and continuing it beyond its edges.

Grid pixel i of a resampled axis lies at level position (i + 1/2)·r - 1/2, r being the ratio of
the two pixel sizes: a function of i alone, whatever window it is computed in. Its value is the
mean of the level's pixels under a triangle of half width max(1, r) px around that position
(the antialiased bilinear filter), along x and then along y, each rounded to uint8; beyond the
level's edge the outermost pixels repeat.

Pillow computes these weights in float64 from a float32 box. Ratios are therefore dyadic
numbers short enough that everything before the weights is exact, so windows agree to the last
bit wherever they overlap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.geometry import Box, Shape, reflect, round_up
from wsi_unet.slides.slide import Level, Slide

SIGNIFICANT_BITS = 24
"""Bits of a float32 significand: what a position in Pillow's box may have."""
FRACTION_BITS = 12
STRIP = 1024
"""Source rows that are held beyond what the filter needs, px."""


class Raster(Protocol):
    """RGB pixels on one grid."""

    @property
    def shape(self) -> Shape:
        """(rows, columns), px of the grid."""

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box inside the grid."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a slide is read to get one grid of pixels.

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

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sampling:
        """Return what `dataclasses.asdict` and a trip through JSON made of a sampling.

        Raises:
            KeyError: a field is missing.
        """
        return cls(
            level=int(data["level"]),
            ratio=(float(data["ratio"][0]), float(data["ratio"][1])),
            shape=(int(data["shape"][0]), int(data["shape"][1])),
            downsample=(float(data["downsample"][0]), float(data["downsample"][1])),
        )


def choose_sampling(
    slide: Slide, downsample: tuple[float, float], tolerance: float = 0.01
) -> Sampling:
    """Choose the level to read, and how to resample it, for a wanted pixel size.

    Args:
        slide: the slide; only its levels are looked at.
        downsample: (y, x) level-0 px per wanted px.
        tolerance: how far a level's pixel size may be off and still be read as it is.

    Returns:
        A plain read if a level has the wanted pixel size, else a resampling of the coarsest
        level that isn't coarser, else (enlarging) of level 0. `downsample` of the result is
        what the grid really has: ratios are rounded to dyadic numbers (by < 0.025 %).

    Raises:
        ValueError: if a downsample isn't a positive number.
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
        return Sampling(chosen, (1.0, 1.0), level.shape, level.downsample)
    ratio = (dyadic(wanted[0]), dyadic(wanted[1]))
    return Sampling(
        level=chosen,
        ratio=ratio,
        shape=(math.ceil(level.shape[0] / ratio[0]), math.ceil(level.shape[1] / ratio[1])),
        downsample=(level.downsample[0] * ratio[0], level.downsample[1] * ratio[1]),
    )


def _quotient(downsample: tuple[float, float], level: Level) -> tuple[float, float]:
    return downsample[0] / level.downsample[0], downsample[1] / level.downsample[1]


def fraction_bits(ratio: float) -> int:
    """Return how many bits after the point a ratio may have: fewer for large ones.

    What is left of a float32's 24 bits must hold the source piece that is filtered at once:
    4096 px for ratios from 1/2 to 16, more for larger and less for smaller ones.
    """
    exponent = math.frexp(ratio)[1]
    return min(18, max(0, FRACTION_BITS - max(0, exponent - 4) + max(0, -exponent)))


def dyadic(ratio: float) -> float:
    """Return the nearest ratio that `fraction_bits` allows, at least the smallest positive one.

    >>> dyadic(2.0), dyadic(1 / 3) * 4096
    (2.0, 1365.0)
    """
    unit = 1 << fraction_bits(ratio)
    return max(1, round(ratio * unit)) / unit


def open_raster(slide: Slide, sampling: Sampling) -> Raster:
    """Return the grid that a sampling describes; reading it reads the slide.

    Raises:
        ValueError: if the slide has no such level, or the ratio isn't one of `dyadic`.
    """
    if not 0 <= sampling.level < len(slide.levels):
        raise ValueError(f"{slide.path.name} has no level {sampling.level}")
    if sampling.ratio == (1.0, 1.0):
        return LevelRaster(slide, sampling.level)
    if any(dyadic(ratio) != ratio for ratio in sampling.ratio):
        raise ValueError(f"ratio {sampling.ratio} isn't exact; take it from choose_sampling")
    return ResampledRaster(slide, sampling)


@dataclass(frozen=True, slots=True)
class LevelRaster:
    """A level as it is."""

    slide: Slide
    level: int

    @property
    def shape(self) -> Shape:
        """(rows, columns), px of the level."""
        return self.slide.levels[self.level].shape

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box inside the level; see `Slide.read`."""
        return self.slide.read(self.level, box)


@dataclass(frozen=True, slots=True)
class ResampledRaster:
    """A level, resampled by the filter that the module describes."""

    slide: Slide
    sampling: Sampling

    @property
    def shape(self) -> Shape:
        """(rows, columns), px of the grid."""
        return self.sampling.shape

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box, px of the grid, in bounded memory beside the result.

        Raises:
            ValueError: if the box is empty or reaches beyond the grid.
            SlideError: the slide can't be read there.
        """
        if not box.area or not Box.of_shape(self.shape).contains(box):
            raise ValueError(f"{box} is empty or reaches beyond the grid of shape {self.shape}")
        result = np.empty((*box.shape, 3), np.uint8)
        level = self.slide.levels[self.sampling.level]
        rows, columns = (
            _Axis(ratio, side) for ratio, side in zip(self.sampling.ratio, level.shape, strict=True)
        )
        # Several strips across only where one of STRIP rows would be too much to hold.
        across = max(1, columns.most(STRIP * 16))
        for x0 in range(box.x0, box.x1, across):
            x1 = min(box.x1, x0 + across)
            part = Box(box.y0, x0, box.y1, x1)
            self._read_part(part, rows, columns, result[:, x0 - box.x0 : x1 - box.x0])
        return result

    def _read_part(self, box: Box, rows: _Axis, columns: _Axis, result: NDArray[np.uint8]) -> None:
        """Fill `result` strip by strip; source rows are read once, in order."""
        down = max(1, rows.most(STRIP))
        source = _Rows(self.slide, self.sampling.level, *columns.needed(box.x0, box.x1))
        for y0 in range(box.y0, box.y1, down):
            y1 = min(box.y1, y0 + down)
            top, bottom = rows.needed(y0, y1)
            strip = source.read(top, bottom)
            _filter(strip, rows.span(y0, y1), columns, box, result[y0 - box.y0 : y1 - box.y0])


@dataclass(frozen=True, slots=True)
class _Span:
    """A run of grid pixels of one axis: `start`, `stop` in px of a source piece (exact)."""

    count: int
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class _Axis:
    """The grid along one axis: its ratio, and how many px the level has."""

    ratio: float
    side: int

    @property
    def margin(self) -> int:
        """Source px that a piece holds before and after what its grid pixels cover."""
        return math.ceil(max(1.0, self.ratio)) + 2

    def position(self, index: int) -> tuple[int, float]:
        """Return the level position where grid pixel `index` begins: whole px and the rest."""
        bits = fraction_bits(self.ratio)
        whole = index * int(self.ratio * (1 << bits))
        return whole >> bits, (whole & ((1 << bits) - 1)) / (1 << bits)

    def needed(self, first: int, stop: int) -> tuple[int, int]:
        """Return the source px [start, stop) for grid pixels [first, stop), beyond edges too."""
        return self.position(first)[0] - self.margin, self.position(stop)[0] + 1 + self.margin

    def span(self, first: int, stop: int) -> _Span:
        """Return grid pixels [first, stop) in the frame of the source that `needed` gives."""
        begin, rest = self.position(first)
        end, end_rest = self.position(stop)
        return _Span(stop - first, self.margin + rest, end - begin + self.margin + end_rest)

    def most(self, source: int) -> int:
        """Return how many grid pixels need about `source` px (and stay exact in float32)."""
        limit = 1 << (SIGNIFICANT_BITS - fraction_bits(self.ratio))
        return max(1, int((min(source, limit) - 2 * self.margin - 4) / self.ratio))


def _filter(
    strip: NDArray[np.uint8],
    rows: _Span,
    columns: _Axis,
    box: Box,
    result: NDArray[np.uint8],
) -> None:
    """Resample a strip of source pixels, in pieces whose positions float32 holds exactly."""
    across = columns.most(1 << SIGNIFICANT_BITS)
    origin = columns.needed(box.x0, box.x1)[0]
    for x0 in range(box.x0, box.x1, across):
        x1 = min(box.x1, x0 + across)
        left, right = columns.needed(x0, x1)
        span = columns.span(x0, x1)
        piece = Image.fromarray(strip[:, left - origin : right - origin])
        # One axis per call: in a single one Pillow chooses their order by the piece's shape.
        narrow = piece.resize(
            (span.count, piece.height),
            Image.Resampling.BILINEAR,
            box=(span.start, 0, span.stop, piece.height),
        )
        resized = narrow.resize(
            (span.count, rows.count),
            Image.Resampling.BILINEAR,
            box=(0, rows.start, span.count, rows.stop),
        )
        result[:, x0 - box.x0 : x1 - box.x0] = np.asarray(resized)


class _Rows:
    """Rows of a level between two columns, read from top to bottom, each only once.

    Rows and columns beyond the level repeat the outermost ones.
    """

    def __init__(self, slide: Slide, level: int, left: int, right: int) -> None:
        self._slide = slide
        self._level = level
        self._shape = slide.levels[level].shape
        self._tile_rows = max(1, slide.levels[level].tile[0])
        self._columns = (left, right)
        self._held = np.empty((0, right - left, 3), np.uint8)
        self._top = 0  # the level's row that held[0] is

    def read(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """Return rows [top, bottom); neither may lie above the ones of the call before."""
        height = self._shape[0]
        first, stop = min(max(top, 0), height - 1), min(max(bottom, 1), height)
        held_stop = self._top + len(self._held)
        if not self._top <= first < held_stop:
            self._held, self._top, held_stop = self._held[:0], first, first
        if stop > held_stop:
            # Up to a whole number of tile rows, so that none is decoded for two strips.
            until = min(round_up(stop, self._tile_rows), height)
            if until - stop > STRIP:
                until = stop
            new = self._read_level(held_stop, until)
            kept = self._held[first - self._top :]
            self._held = np.concatenate([kept, new]) if len(kept) else new
            self._top = first
        rows = self._held[first - self._top : stop - self._top]
        before, after = max(0, first - top), max(0, bottom - stop)
        if before or after:
            rows = np.pad(rows, ((before, after), (0, 0), (0, 0)), mode="edge")
        return rows[: bottom - top]

    def _read_level(self, top: int, bottom: int) -> NDArray[np.uint8]:
        width = self._shape[1]
        left, right = self._columns
        first, stop = min(max(left, 0), width - 1), min(max(right, 1), width)
        pixels = self._slide.read(self._level, Box(top, first, bottom, stop))
        before, after = max(0, first - left), max(0, right - stop)
        if before or after:
            pixels = np.pad(pixels, ((0, 0), (before, after), (0, 0)), mode="edge")
        return pixels[:, : right - left]


def read_mirrored(raster: Raster, window: Box) -> NDArray[np.uint8]:
    """Return a window that may reach beyond the raster on any side, any number of times.

    Args:
        raster: the pixels.
        window: px of the raster's grid, not empty.

    Returns:
        RGB (h, w, 3) uint8; outside, the raster is mirrored without repeating its edge pixel
        (numpy's `reflect`). Only what occurs in the window is read.

    Raises:
        ValueError: if the window is empty.
        SlideError: the slide can't be read there.
    """
    if not window.area:
        raise ValueError(f"nothing to read: {window} is empty")
    height, width = raster.shape
    if Box.of_shape(raster.shape).contains(window):
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
    """Return pixels[:, columns], copying the long ascending run in the middle as one piece."""
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


def read_thumbnail(slide: Slide, max_side: int) -> NDArray[np.uint8]:
    """Return the whole slide, reduced (never enlarged) to at most `max_side` px per side.

    Returns:
        RGB (h, w, 3) uint8.

    Raises:
        ValueError: if `max_side` is less than 1.
        SlideError: the slide can't be read.
    """
    if max_side < 1:
        raise ValueError(f"a thumbnail needs at least 1 px per side, not {max_side}")
    downsample = max(1.0, max(slide.shape) / max_side)
    sampling = choose_sampling(slide, (downsample, downsample), tolerance=0.0)
    raster = open_raster(slide, sampling)
    rows, columns = (min(side, max_side) for side in raster.shape)
    return raster.read(Box(0, 0, rows, columns))

"""The antialiasing filter that resamples a level, with the same result in every window.

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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.geometry import Box, round_up
from wsi_unet.slides.levels import LevelSource

SIGNIFICANT_BITS = 24
"""Bits of a float32 significand: how many a position in Pillow's box may have."""
FRACTION_BITS = 12
"""Bits after the point of a ratio between 1/2 and 16."""
STRIP_ROWS = 1024
MAX_COLUMNS = 1 << 14
"""Rows and columns of the level that are held at once, px; more where a ratio needs them."""


def fraction_bits(ratio: float) -> int:
    """Return how many bits after the point a ratio may have: the larger, the fewer.

    The rest of a float32's 24 bits must hold a position in the piece that is filtered at once:
    4096 px for ratios from 1/2 to 16, more for larger and fewer for smaller ones.
    """
    exponent = math.frexp(ratio)[1]
    return min(18, max(0, FRACTION_BITS - max(0, exponent - 4) + max(0, -exponent)))


def dyadic(ratio: float) -> float:
    """Return the nearest positive ratio that has as few bits as `fraction_bits` allows.

    >>> dyadic(2.0), dyadic(4 / 3) * 4096
    (2.0, 5461.0)
    """
    unit = 1 << fraction_bits(ratio)
    return max(1, round(ratio * unit)) / unit


def resample(
    slide: LevelSource, level: int, ratio: tuple[float, float], box: Box
) -> NDArray[np.uint8]:
    """Return a box of the grid that `ratio` lays over a level.

    Args:
        slide: the slide.
        level: the level that is read.
        ratio: (y, x) px of the level per grid px, each `dyadic`.
        box: px of the grid, not empty.

    Returns:
        RGB (h, w, 3) uint8. Beside it, memory is bounded: the level is read in strips of rows.

    Raises:
        SlideError: the slide can't be read there.
    """
    result = np.empty((*box.shape, 3), np.uint8)
    rows, columns = Axis(ratio[0]), Axis(ratio[1])
    # Strips are as wide as the box unless that would be too much to hold.
    step = columns.count_within(MAX_COLUMNS)
    for x0 in range(box.x0, box.x1, step):
        x1 = min(box.x1, x0 + step)
        target = result[:, x0 - box.x0 : x1 - box.x0]
        level_rows = _Rows(slide, level, *columns.needed(x0, x1))
        _fill(level_rows, rows, columns, Box(box.y0, x0, box.y1, x1), target)
    return result


def _fill(
    level_rows: _Rows, rows: Axis, columns: Axis, box: Box, result: NDArray[np.uint8]
) -> None:
    """Resample a box into `result`, strip by strip."""
    step = rows.count_within(min(STRIP_ROWS, rows.exact_side))
    for y0 in range(box.y0, box.y1, step):
        y1 = min(box.y1, y0 + step)
        strip = level_rows.read(*rows.needed(y0, y1))
        _filter(strip, rows.span(y0, y1), columns, box, result[y0 - box.y0 : y1 - box.y0])


@dataclass(frozen=True, slots=True)
class Span:
    """A run of grid pixels along one axis.

    Attributes:
        count: how many there are.
        start: where the first begins, px of a piece of the level; exact in float32.
        stop: where the last ends, px of that piece; exact in float32.
    """

    count: int
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class Axis:
    """The grid along one axis.

    Attributes:
        ratio: px of the level per grid px, `dyadic`.
    """

    ratio: float

    @property
    def margin(self) -> int:
        """Px of the level that a piece holds before and after what its grid pixels cover."""
        return math.ceil(max(1.0, self.ratio)) + 2

    def position(self, index: int) -> tuple[int, float]:
        """Return where grid pixel `index` begins, px of the level: whole px and the fraction."""
        bits = fraction_bits(self.ratio)
        whole = index * int(self.ratio * (1 << bits))
        return whole >> bits, (whole & ((1 << bits) - 1)) / (1 << bits)

    def needed(self, first: int, stop: int) -> tuple[int, int]:
        """Return the rows or columns [start, stop) of the level that [first, stop) need.

        They may reach beyond the level.
        """
        return self.position(first)[0] - self.margin, self.position(stop)[0] + 1 + self.margin

    def span(self, first: int, stop: int) -> Span:
        """Return grid pixels [first, stop) in the frame of the piece that `needed` gives."""
        begin, rest = self.position(first)
        end, end_rest = self.position(stop)
        return Span(stop - first, self.margin + rest, end - begin + self.margin + end_rest)

    def count_within(self, side: int) -> int:
        """Return how many grid pixels need about `side` px of the level, at least 1."""
        return max(1, int((side - 2 * self.margin - 4) / self.ratio))

    @property
    def exact_side(self) -> int:
        """Side up to which all positions in a piece are exact in float32, px of the level."""
        return 1 << (SIGNIFICANT_BITS - fraction_bits(self.ratio))


def _filter(
    strip: NDArray[np.uint8],
    rows: Span,
    columns: Axis,
    box: Box,
    result: NDArray[np.uint8],
) -> None:
    """Resample a strip of the level, in pieces whose positions are exact in float32."""
    step = columns.count_within(columns.exact_side)
    origin = columns.needed(box.x0, box.x1)[0]
    for x0 in range(box.x0, box.x1, step):
        x1 = min(box.x1, x0 + step)
        left, right = columns.needed(x0, x1)
        span = columns.span(x0, x1)
        piece = Image.fromarray(strip[:, left - origin : right - origin])
        # One axis per call: in a single call Pillow chooses the order by the piece's shape.
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

    Beyond the level, its outermost rows and columns repeat.
    """

    def __init__(self, slide: LevelSource, level: int, left: int, right: int) -> None:
        self._slide = slide
        self._level = level
        self._shape = slide.levels[level].shape
        self._tile_rows = max(1, slide.levels[level].tile[0])
        self._columns = (left, right)
        self._held = np.empty((0, right - left, 3), np.uint8)
        self._top = 0  # the level's row that held[0] is

    def read(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """Return rows [top, bottom); neither may lie above those of the previous call."""
        height = self._shape[0]
        first, stop = min(max(top, 0), height - 1), min(max(bottom, 1), height)
        held_stop = self._top + len(self._held)
        if not self._top <= first < held_stop:
            self._held, self._top, held_stop = self._held[:0], first, first
        if stop > held_stop:
            # Up to a whole number of tile rows, so that no tile is decoded for two strips.
            until = min(round_up(stop, self._tile_rows), height)
            if until - stop > STRIP_ROWS:
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

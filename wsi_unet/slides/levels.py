"""The levels of a slide and the size of its pixels, known before any pixel is read.

Level 0 is the finest. The downsample of a level is how many level-0 px one of its px covers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box, Shape
from wsi_unet.image_files import check_size
from wsi_unet.wording import write_size

FINEST_MPP = 0.02
COARSEST_MPP = 100.0
"""µm per px that a microscope slide can have; some files state 264.6 or 352.9 (dots per inch)."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide's pyramid.

    Attributes:
        shape: (rows, columns), px of this level.
        downsample: (y, x) level-0 px per px of this level, (1, 1) at level 0.
        tile: (rows, columns) that the reader decodes at once, px of this level. Reads that
            start and stop at multiples of it decode nothing twice.
    """

    shape: Shape
    downsample: tuple[float, float]
    tile: Shape = (512, 512)


@dataclass(frozen=True, slots=True)
class PixelSize:
    """The size of a level-0 pixel as the file states it, in µm; not checked (see `check_mpp`)."""

    y: float
    x: float


class LevelSource(Protocol):
    """Something with levels that can be read: all that resampling needs of a `Slide`."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest level first."""

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box that lies inside an existing level."""


def find_origin(properties: Mapping[str, object], library: str, shape: Shape) -> tuple[int, int]:
    """Return where the area that was scanned begins, (y, x) level-0 px: OpenSlide's bounds.

    Args:
        properties: what a library says of a slide.
        library: the library's name, with which its properties begin.
        shape: (rows, columns) of level 0. What lies outside isn't believed.

    >>> find_origin({"openslide.bounds-y": "20", "openslide.bounds-x": "30"}, "openslide", (50, 50))
    (20, 30)
    >>> find_origin({}, "openslide", (50, 50))
    (0, 0)
    """
    texts = (str(properties.get(f"{library}.bounds-{axis}", "")) for axis in "yx")
    y, x = (int(text) if text.isdecimal() else 0 for text in texts)
    return (y, x) if y < shape[0] and x < shape[1] else (0, 0)


def format_mpp(*sides: float) -> str:
    """Write a pixel size, µm, with as many digits everywhere; both sides only if they differ.

    Args:
        sides: (y, x), or one number for both.

    >>> format_mpp(0.4990), format_mpp(0.25, 0.252525)
    ('0.499', '0.2525 × 0.25')
    """
    y, x = (f"{side:.4g}" for side in (sides[0], sides[-1]))
    return x if y == x else f"{x} × {y}"


def check_mpp(mpp: PixelSize | float) -> None:
    """Refuse a pixel size that no microscope slide has.

    Args:
        mpp: µm per px, as stated by a file or a user.

    Raises:
        SlideError: it is below 0.02 or above 100 µm, or not a number.
    """
    sides = (mpp.y, mpp.x) if isinstance(mpp, PixelSize) else (mpp,)
    for side in sides:
        if not FINEST_MPP <= side <= COARSEST_MPP:
            raise SlideError(
                f"a pixel size of {side:.6g} µm is outside {FINEST_MPP} to {COARSEST_MPP:g} µm, so "
                "it can't be right; give the true `mpp`"
            )


def check_levels(levels: Sequence[Level]) -> None:
    """Refuse levels that can't be those of a slide, whatever reader found them.

    Raises:
        SlideError: there are none, one is empty or too large, or a level is larger than the finer
            one before it.
    """
    if not levels:
        raise SlideError("has no level to read; the file is damaged, fetch it again")
    for number, level in enumerate(levels):
        (rows, columns), tile = level.shape, level.tile
        if not all(isinstance(side, int) and side >= 1 for side in (rows, columns, *tile)):
            raise SlideError(
                f"level {number} has {write_size(level.shape)} in pieces of {write_size(tile)}; "
                "the file is damaged, fetch it again"
            )
        try:
            check_size(level.shape, tile)
        except ValueError as error:
            raise SlideError(f"level {number} is too large: {error}") from error
    for number, (finer, level) in enumerate(pairwise(levels), start=1):
        if any(side > larger for side, larger in zip(level.shape, finer.shape, strict=True)):
            raise SlideError(
                f"level {number}, {write_size(level.shape)}, is larger than the finer "
                "one before it; the file is damaged, fetch it again"
            )


def make_levels(shapes: Sequence[Shape], tiles: Sequence[Shape]) -> tuple[Level, ...]:
    """Return levels whose downsamples are derived from their shapes.

    Writers round the size of a level, so the quotient of two sizes is a little off; where an
    integer factor explains the sizes to within that rounding, it is taken as exact.

    Args:
        shapes: (rows, columns) of each level, px, finest first.
        tiles: (rows, columns) that are decoded at once, px of each level.

    >>> levels = make_levels([(13500, 15071), (6750, 7536)], [(512, 512), (512, 512)])
    >>> [level.downsample for level in levels]
    [(1.0, 1.0), (2.0, 2.0)]
    """
    return tuple(
        Level(shape, _downsample(shapes[0], shape), tile)
        for shape, tile in zip(shapes, tiles, strict=True)
    )


def _downsample(finest: Shape, shape: Shape) -> tuple[float, float]:
    if min(*finest, *shape) < 1:
        return 1.0, 1.0  # `check_levels` refuses it and says more
    longer = 0 if shape[0] >= shape[1] else 1
    common = round(finest[longer] / shape[longer])
    if all(_explains(common, big, small) for big, small in zip(finest, shape, strict=True)):
        return float(common), float(common)
    y, x = (
        float(round(big / small)) if _explains(round(big / small), big, small) else big / small
        for big, small in zip(finest, shape, strict=True)
    )
    return y, x


def _explains(factor: int, big: int, small: int) -> bool:
    """Return whether `small` is `big / factor`, rounded down or up."""
    return factor >= 1 and abs(big - factor * small) < factor

"""The pixel grids of label images, and the nearest pixel of one for each pixel of another.

Positions are relative to the centre of the slide's first pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.polygons import Polygon
from wsi_unet.errors import EvaluationError
from wsi_unet.geometry import Box, Shape
from wsi_unet.wording import write_size

DIGITS = 6
"""Positions are rounded to this many digits of a pixel, so that ties always fall the same way."""

Region = tuple[int, int, int, int]
"""(x, y, width, height) in full-resolution px of the slide."""
NearestPixels = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Nearest row of another grid for each row, and nearest column for each column; -1 for none."""


@dataclass(frozen=True)
class PixelCentres:
    """Centres of an image's pixels: that of (i, j) lies at first + (i, j) * step, (y, x)."""

    first: tuple[float, float]
    step: tuple[float, float]


SLIDE_PIXELS = PixelCentres((0.0, 0.0), (1.0, 1.0))


@dataclass(frozen=True)
class Grid:
    """The pixels of a label image.

    Attributes:
        shape: (rows, columns).
        pixels: their centres in full-resolution px of the slide; None if unknown.
        micrometres: their centres in µm; None if unknown.
        slide: fingerprint of the slide; None if unknown.
        slide_shape: (rows, columns) of the slide at full resolution; None if unknown.
    """

    shape: Shape
    pixels: PixelCentres | None = None
    micrometres: PixelCentres | None = None
    slide: str | None = None
    slide_shape: Shape | None = None

    @property
    def slide_centres(self) -> PixelCentres:
        """Centres of the pixels in full-resolution px; those of an image are the slide's own."""
        return self.pixels or SLIDE_PIXELS

    def find_box(self, region: Region) -> Box:
        """Return the pixels whose centres lie in a region, clipped to the grid."""
        x, y, width, height = region
        sides = []
        for axis, (start, length) in enumerate(((y, height), (x, width))):
            ends = (start - 0.5, start + length - 0.5)
            first, step = self.slide_centres.first[axis], self.slide_centres.step[axis]
            low, high = (math.ceil(round((end - first) / step, DIGITS)) for end in ends)
            sides.append((max(0, low), min(self.shape[axis], high)))
        return Box(sides[0][0], sides[1][0], sides[0][1], sides[1][1])

    def transform_polygon(self, polygon: Polygon) -> Polygon:
        """Return a polygon in px of this grid instead of full-resolution px of the slide.

        Pixel (i, j) covers [i, i + 1) x [j, j + 1) in both.
        """
        first, step = np.array(self.slide_centres.first), np.array(self.slide_centres.step)
        return tuple((ring - 0.5 - first) / step + 0.5 for ring in polygon)


def locate_grid(
    shape: Shape, centres: PixelCentres, *, micrometres: bool, slide: Mapping[str, Any]
) -> Grid:
    """Return the grid of labels of a result.

    Args:
        shape: (rows, columns).
        centres: the pixels' centres.
        micrometres: whether these are in µm, rather than in full-resolution px of the slide.
        slide: what the result says about its slide.
    """
    facts: dict[str, Any] = {
        "slide": slide.get("fingerprint"),
        "slide_shape": tuple(slide["shape"]) if "shape" in slide else None,
    }
    if not micrometres:
        return Grid(shape, pixels=centres, **facts)
    mpp = slide.get("mpp")
    return Grid(shape, None if mpp is None else _to_pixels(centres, mpp), centres, **facts)


def _to_pixels(micrometres: PixelCentres, mpp: tuple[float, float]) -> PixelCentres:
    first, step = (
        (pair[0] / mpp[0], pair[1] / mpp[1]) for pair in (micrometres.first, micrometres.step)
    )
    return PixelCentres(first, step)


def match_grids(grid: Grid, other: Grid, name: str, other_name: str) -> NearestPixels:
    """Find the nearest pixel of another grid for each pixel of this one.

    Two results of one slide are matched in its pixels, others in µm where both have them. An image
    has the pixels of the result that it is compared with, or of the slide, as its size says.

    Args:
        grid: grid of the prediction.
        other: grid of the truth.
        name: name of the prediction, for messages.
        other_name: name of the truth, for messages.

    Raises:
        EvaluationError: they have no coordinates in common and differ in size.
    """
    common = _find_common_unit(grid, other)
    if common is not None:
        rows, columns = (_find_nearest(axis, grid, other, common) for axis in (0, 1))
        return rows, columns
    if grid.shape != other.shape:
        raise EvaluationError(
            f"{name} and {other_name} differ in size ({write_size(grid.shape)} and "
            f"{write_size(other.shape)}) and have no coordinates in common that would say which "
            "pixels belong together; crop or resize one of them"
        )
    return np.arange(grid.shape[0]), np.arange(grid.shape[1])


def scale_between(nearest: NearestPixels) -> float:
    """Return how many px of the other grid one px of this grid spans; 1 if the other is coarser."""
    factors = [1.0]
    for axis in nearest:
        matched = axis[axis >= 0]
        if len(matched) > 1:
            factors.append((int(matched[-1]) - int(matched[0])) / (len(matched) - 1))
    return max(factors)


def _find_common_unit(grid: Grid, other: Grid) -> tuple[PixelCentres, PixelCentres] | None:
    """Return the centres of the pixels of both in one unit; None if they have none in common."""
    same_slide = grid.slide is not None and grid.slide == other.slide
    if grid.pixels and other.pixels and same_slide:
        return grid.pixels, other.pixels
    if grid.micrometres and other.micrometres:
        return grid.micrometres, other.micrometres
    if grid.shape == other.shape:
        return None
    if grid.pixels and not other.pixels and other.shape == grid.slide_shape:
        return grid.pixels, SLIDE_PIXELS
    if other.pixels and not grid.pixels and grid.shape == other.slide_shape:
        return SLIDE_PIXELS, other.pixels
    return None


def _find_nearest(
    axis: int, grid: Grid, other: Grid, common: tuple[PixelCentres, PixelCentres]
) -> NDArray[np.intp]:
    own, others = common
    centres = own.first[axis] + own.step[axis] * np.arange(grid.shape[axis])
    positions = (centres - others.first[axis]) / others.step[axis]
    nearest = np.floor(np.round(positions, DIGITS) + 0.5)
    inside = (nearest >= 0) & (nearest < other.shape[axis])
    return np.where(inside, nearest, -1).astype(np.intp)

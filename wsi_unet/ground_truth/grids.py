"""Where the pixels of two label images lie, and which of one lies under each of the other.

Positions are relative to the centre of the slide's first pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.polygons import Polygon
from wsi_unet.errors import EvaluationError
from wsi_unet.geometry import Box, Shape

DIGITS = 6
"""Positions are rounded to this many digits of a pixel, so that ties fall the same way always."""

Region = tuple[int, int, int, int]
"""(x, y, width, height), full-resolution px of the slide."""
Places = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Row and column of another grid for each row and column of this one; -1 where there is none."""


@dataclass(frozen=True)
class Steps:
    """The centre of pixel (i, j) lies at first + (i, j) * step, (y, x)."""

    first: tuple[float, float]
    step: tuple[float, float]


SLIDE_PIXELS = Steps((0.0, 0.0), (1.0, 1.0))


@dataclass(frozen=True)
class Grid:
    """The pixels of a label image.

    Attributes:
        shape: (rows, columns).
        pixels: where they lie, full-resolution px of the slide; None if that isn't known.
        micrometres: where they lie, µm; None if that isn't known.
        slide: fingerprint of the slide, None if that isn't known.
        slide_shape: (rows, columns) of the slide at full resolution, None if that isn't known.
    """

    shape: Shape
    pixels: Steps | None = None
    micrometres: Steps | None = None
    slide: str | None = None
    slide_shape: Shape | None = None

    @property
    def on_slide(self) -> Steps:
        """Where the pixels lie on the slide; those of an image are the slide's own."""
        return self.pixels or SLIDE_PIXELS

    def box_of(self, region: Region) -> Box:
        """Return the pixels whose centres lie in a region, clipped to the grid."""
        x, y, width, height = region
        sides = []
        for axis, (start, length) in enumerate(((y, height), (x, width))):
            ends = (start - 0.5, start + length - 0.5)
            first, step = self.on_slide.first[axis], self.on_slide.step[axis]
            low, high = (math.ceil(round((end - first) / step, DIGITS)) for end in ends)
            sides.append((max(0, low), min(self.shape[axis], high)))
        return Box(sides[0][0], sides[1][0], sides[0][1], sides[1][1])

    def on_grid(self, polygon: Polygon) -> Polygon:
        """Return a polygon in pixels of this grid instead of the slide's at full resolution.

        Pixel (i, j) covers [i, i + 1) x [j, j + 1) in both.
        """
        first, step = np.array(self.on_slide.first), np.array(self.on_slide.step)
        return tuple((ring - 0.5 - first) / step + 0.5 for ring in polygon)


def match_grids(grid: Grid, other: Grid, name: str, other_name: str) -> Places:
    """Find the nearest pixel of another grid for each pixel of this one.

    Two results of one slide meet in its pixels, others in µm where both have them; an image has the
    pixels of the result it is compared with, or the slide's, whichever its size says.

    Args:
        grid: of the prediction.
        other: of the truth.
        name: of the prediction, for messages.
        other_name: of the truth.

    Raises:
        EvaluationError: they have no coordinates in common and differ in size.
    """
    common = _common(grid, other)
    if common is not None:
        rows, columns = (_nearest(axis, grid, other, common) for axis in (0, 1))
        return rows, columns
    if grid.shape != other.shape:
        raise EvaluationError(
            f"{name} and {other_name} differ in size ({_size(grid)} and {_size(other)}) and have "
            "no coordinates in common that would say which pixels belong together; crop or resize "
            "one of them"
        )
    return np.arange(grid.shape[0]), np.arange(grid.shape[1])


def scale_between(places: Places) -> float:
    """Return how many pixels of the other grid one of this grid spans, at most 1 if coarser."""
    factors = [1.0]
    for axis in places:
        there = axis[axis >= 0]
        if len(there) > 1:
            factors.append((int(there[-1]) - int(there[0])) / (len(there) - 1))
    return max(factors)


def _common(grid: Grid, other: Grid) -> tuple[Steps, Steps] | None:
    """Return where the pixels of both lie, in one unit."""
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


def _nearest(axis: int, grid: Grid, other: Grid, common: tuple[Steps, Steps]) -> NDArray[np.intp]:
    here, there = common
    centres = here.first[axis] + here.step[axis] * np.arange(grid.shape[axis])
    place = (centres - there.first[axis]) / there.step[axis]
    nearest = np.floor(np.round(place, DIGITS) + 0.5)
    inside = (nearest >= 0) & (nearest < other.shape[axis])
    return np.where(inside, nearest, -1).astype(np.intp)


def _size(grid: Grid) -> str:
    return f"{grid.shape[1]} x {grid.shape[0]} px"

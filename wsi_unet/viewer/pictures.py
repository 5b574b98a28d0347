"""Tiles of the slide: read from its own levels, or from the image that a result stores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.geometry import Box, Shape
from wsi_unet.viewer.tile_grid import TILE, TilePlace

COARSEST_READ = 16
"""How much finer than a tile a level may be, and still be read for it: 8192 x 8192 px."""

TOLERANCE = 0.01
"""By what share the pixels of a level may be too large, and still count as fine enough."""

PAPER = 255
"""Brightness beyond the slide's edge."""

RGB = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PictureLevel:
    """A level of a slide, or of its stored image, whose first pixel begins where the slide does.

    Attributes:
        downsample: (y, x) px of the slide per px.
        shape: (rows, columns), px.
        read: returns RGB (h, w, 3) of a box inside the level; threads may read at once.
    """

    downsample: tuple[float, float]
    shape: Shape
    read: Callable[[Box], RGB]


def choose_level(levels: Sequence[PictureLevel], step: int) -> PictureLevel | None:
    """Return the coarsest level that is fine enough for a tile, or else the finest there is.

    Args:
        levels: in any order; of equal ones the first is taken.
        step: side of what a pixel of the tile covers, px of the slide.

    Returns:
        None if there is no level, or only some so fine that reading them would take too long.
    """
    most = step * (1 + TOLERANCE)
    fine = [level for level in levels if max(level.downsample) <= most]
    if not fine:
        return min(levels, key=lambda level: max(level.downsample), default=None)
    chosen = max(fine, key=lambda level: max(level.downsample))
    return chosen if step <= COARSEST_READ * min(chosen.downsample) else None


def render_picture(levels: Sequence[PictureLevel], place: TilePlace) -> RGB | None:
    """Return a tile, RGB (TILE, TILE, 3): the mean of the pixels under each of its own.

    Returns:
        None if no level can be shown at this zoom, see `choose_level`.

    Raises:
        SlideError: the slide can't be read there.
        OutputError: the stored image can't.
    """
    level = choose_level(levels, place.step)
    if level is None:
        return None
    tile = np.full((TILE, TILE, 3), PAPER, np.uint8)
    rows, columns = place.inside
    tile[:rows, :columns] = _resample(level, place, rows, columns)
    return tile


def _resample(level: PictureLevel, place: TilePlace, rows: int, columns: int) -> RGB:
    """Return the first rows and columns of a tile."""
    factor_y, factor_x = level.downsample
    y0, x0 = place.box.y0 / factor_y, place.box.x0 / factor_x
    y1, x1 = y0 + rows * place.step / factor_y, x0 + columns * place.step / factor_x
    reduced = min(place.step / factor_y, place.step / factor_x) >= 1
    margin = 0 if reduced else 2  # what a bilinear filter looks at beyond the edges
    wanted = Box(math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1)).grow(margin, margin)
    pixels = _read_padded(level, wanted)
    if pixels.shape[:2] == (rows, columns):
        return pixels
    method = Image.Resampling.BOX if reduced else Image.Resampling.BILINEAR
    part = (x0 - wanted.x0, y0 - wanted.y0, x1 - wanted.x0, y1 - wanted.y0)
    return np.asarray(Image.fromarray(pixels).resize((columns, rows), method, part))


def _read_padded(level: PictureLevel, wanted: Box) -> RGB:
    """Return a box that may reach beyond the level, where pixels at its edge are repeated."""
    rows, columns = level.shape
    y0, x0 = (min(max(0, e), side - 1) for e, side in ((wanted.y0, rows), (wanted.x0, columns)))
    y1, x1 = (min(e, side) for e, side in ((wanted.y1, rows), (wanted.x1, columns)))
    inside = Box(y0, x0, max(y1, y0 + 1), max(x1, x0 + 1))
    pixels = level.read(inside)
    padding = (
        (max(0, inside.y0 - wanted.y0), max(0, wanted.y1 - inside.y1)),
        (max(0, inside.x0 - wanted.x0), max(0, wanted.x1 - inside.x1)),
        (0, 0),
    )
    return np.pad(pixels, padding, mode="edge") if any(map(any, padding)) else pixels

"""A small overview of a whole slide, made as fast as the slide can be decoded."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box
from wsi_unet.slides.levels import LevelSource
from wsi_unet.slides.resample import choose_resampling, open_raster

MIN_RATIO = 4
"""Level px per overview px from which means replace the resampling filter, which is slower."""
MAX_RATIO = 256
"""Level px per overview px up to which the sum of a column of uint8 fits into a uint16."""
ROWS_AT_ONCE, COLUMNS_AT_ONCE = 1024, 8192
"""About how much of the level is read at once, px."""


def read_overview(slide: LevelSource, cell: int) -> NDArray[np.uint8]:
    """Return a whole slide with one pixel per cell.

    Args:
        slide: the slide; the coarsest level that isn't coarser than the cells is read.
        cell: level-0 px per side of a cell.

    Returns:
        RGB (h, w, 3) uint8. Where a cell has a whole number of that level's px per side, at
        least `MIN_RATIO`, it is their mean; else the level is resampled.

    Raises:
        SlideError: the slide can't be read.
    """
    resampling = choose_resampling(slide, (cell, cell), tolerance=0.0)
    ratios = resampling.ratio
    if not all(MIN_RATIO <= ratio <= MAX_RATIO and ratio == int(ratio) for ratio in ratios):
        raster = open_raster(slide, resampling)
        return raster.read(Box.from_shape(raster.shape))
    down, across = (int(ratio) for ratio in ratios)
    level = slide.levels[resampling.level]
    rows, columns = level.shape
    # A strip as wide as the level is always decoded whole, so all of it is read at once.
    wide = columns if level.tile[1] >= columns else _step(COLUMNS_AT_ONCE, across, level.tile[1])
    about = max(1, min(ROWS_AT_ONCE, ROWS_AT_ONCE * COLUMNS_AT_ONCE // wide))
    tall = _step(about, down, level.tile[0])
    result = np.empty((*resampling.shape, 3), np.uint8)
    for y in range(0, rows, tall):
        for x in range(0, columns, wide):
            box = Box(y, x, min(rows, y + tall), min(columns, x + wide))
            means = _means(slide.read(resampling.level, box), down, across)
            top, left = y // down, x // across
            result[top : top + means.shape[0], left : left + means.shape[1]] = means
    return result


def _step(about: int, ratio: int, tile: int) -> int:
    """Return a multiple of `ratio` near `about`, of `tile` too where one lies near enough."""
    unit = math.lcm(ratio, tile)
    if unit > 2 * about:
        unit = ratio
    return unit * max(1, about // unit)


def _means(pixels: NDArray[np.uint8], down: int, across: int) -> NDArray[np.uint8]:
    """Return the rounded mean of each cell of (down, across) px; the last ones may be smaller."""
    rows, columns = pixels.shape[:2]
    height, width = -(-rows // down), -(-columns // across)
    sums = np.empty((height, columns, 3), np.uint16)
    full = rows // down
    np.sum(
        pixels[: full * down].reshape(full, down, columns, 3),
        axis=1,
        dtype=np.uint16,
        out=sums[:full],
    )
    if full < height:
        np.sum(pixels[full * down :], axis=0, dtype=np.uint16, out=sums[full])
    totals = np.add.reduceat(sums.astype(np.uint32), np.arange(0, columns, across), axis=1)
    tall = np.minimum(down, rows - np.arange(height) * down)
    wide = np.minimum(across, columns - np.arange(width) * across)
    area = (tall[:, None] * wide).astype(np.uint32)[..., None]
    means: NDArray[np.uint8] = ((totals + area // 2) // area).astype(np.uint8)
    return means

"""Measuring the colours of a slide's tissue, for models that normalise by them.

Sums are of whole numbers, so the order in which pixels are read doesn't matter; and which pixels
are read depends on the slide and its mask only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.colour import CHANNEL_WEIGHTS, ChannelOrder
from wsi_unet.geometry import BlockGrid
from wsi_unet.slides.resample import Raster
from wsi_unet.slides.tissue.mask import TissueMask, mask_in_box, mask_touches

CELL_SIDE = 256
"""Side of a cell, which is read at once, px."""

MAX_CELLS = 256
"""Cells that are read at most, spread evenly over the tissue: 16.8 million pixels."""

LEAST_DEVIATION = 1 / 255
"""One grey level: smaller deviations are noise, which normalising mustn't amplify."""


@dataclass(frozen=True)
class ColourSums:
    """Sums over pixels of R, G and B, 0 to 255.

    Attributes:
        pixels: how many there are; at least one.
        sums: of each colour.
        products: of each pair of colours, multiplied; three rows of three.
    """

    pixels: int
    sums: tuple[int, ...]
    products: tuple[tuple[int, ...], ...]

    def channels(self, order: ChannelOrder) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation of each channel of a network; intensities are 0 to 1."""
        mean = np.array(self.sums) / self.pixels / 255
        square = np.array(self.products) / self.pixels / 255**2
        covariance = square - np.outer(mean, mean)
        means, deviations = [], []
        for weights in np.array(CHANNEL_WEIGHTS[order], np.float64):
            means.append(float(weights @ mean))
            variance = max(0.0, float(weights @ covariance @ weights))
            deviations.append(max(LEAST_DEVIATION, variance**0.5))
        return tuple(means), tuple(deviations)


def measure_colours(raster: Raster, mask: TissueMask | None) -> ColourSums | None:
    """Sum up the colours of a slide's tissue, in memory that doesn't grow with the slide.

    Args:
        raster: the slide on the grid that the network sees.
        mask: tissue, stretched over the slide; None takes everything for tissue.

    Returns:
        The sums over the tissue in all cells that touch any, or in `MAX_CELLS` of those, evenly
        spread row by row; None if there is no tissue.

    Raises:
        SlideError: the slide can't be read.
    """
    shape, total = raster.shape, 0
    grid = BlockGrid(shape, CELL_SIDE)
    cores = [grid.core(index) for index in grid]
    if mask is not None:
        cores = [core for core in cores if mask_touches(mask, core, shape)]
    sums, products = np.zeros(3, np.int64), np.zeros((3, 3), np.int64)
    count = min(len(cores), MAX_CELLS)
    for number in range(count):
        core = cores[number * len(cores) // count]
        pixels: NDArray[np.uint8] = raster.read(core).reshape(-1, 3)
        if mask is not None:
            pixels = pixels[mask_in_box(mask, core, shape).reshape(-1)]
        exact = pixels.astype(np.float64)  # sums of a cell stay below 2^53
        total += len(pixels)
        sums += exact.sum(axis=0).astype(np.int64)
        products += (exact.T @ exact).astype(np.int64)
    if not total:
        return None
    return ColourSums(total, tuple(sums.tolist()), tuple(tuple(row) for row in products.tolist()))

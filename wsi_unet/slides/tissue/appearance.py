"""The appearance of tissue in four numbers: how much light it absorbs, and of which colours.

Absorbance is the decadic optical density -log10(I / white), which adds up over dyes and thickness
(Beer and Lambert). Its shares of red, green and blue depend on the dyes, hardly on how much of them
there is: haematoxylin and eosin absorb green most, DAB blue, and a grey picture all three alike.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.colour import WHITE

CELL = 16
"""Side of a cell, px at the model's pixel size: some µm, as on overviews."""

LEAST_ABSORBANCE = 0.1
"""Absorbance, summed over the colours, below which a cell is glass."""

FEWEST_CELLS = 4
"""Cells with tissue that are needed to measure an appearance."""


@dataclass(frozen=True)
class Appearance:
    """The appearance of some tissue.

    Attributes:
        red: share of red in the absorbance; the three shares add up to 1.
        green: share of green.
        blue: share of blue.
        density: decadic logarithm of the mean absorbance, which is summed over the colours.
    """

    red: float
    green: float
    blue: float
    density: float

    def values(self) -> tuple[float, ...]:
        """Return the four numbers in this order."""
        return astuple(self)


def measure_appearance(cells: NDArray[np.generic]) -> Appearance | None:
    """Return the appearance of the tissue among cells; None if there is next to none.

    Args:
        cells: (n, 3) mean RGB of each cell, 0 to 255.
    """
    grey = np.maximum(cells.astype(np.float64), 1.0)
    absorbance = -np.log10(grey / WHITE)
    tissue = absorbance[absorbance.sum(axis=1) > LEAST_ABSORBANCE]
    if len(tissue) < FEWEST_CELLS:
        return None
    means = tissue.mean(axis=0)
    total = means.sum()
    red, green, blue = (float(share) for share in means / total)
    return Appearance(red, green, blue, float(np.log10(total)))


def average_cells(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean RGB (n, 3) of the whole cells of an image (h, w, 3), row by row."""
    rows, columns = pixels.shape[0] // CELL, pixels.shape[1] // CELL
    cells = pixels[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL, 3)
    means: NDArray[np.float64] = cells.mean(axis=(1, 3)).reshape(-1, 3)
    return means

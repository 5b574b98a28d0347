"""Pixel counts of each class in the cells of a coarse grid, from which samples are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape
from wsi_unet.training.fields import IGNORED, NOTHING

CELL = 128
"""Side of a cell, px; its number of pixels fits 16 bits."""
AT_ONCE = 16
"""Cells per side that are counted at a time."""
AREA = 2048
"""Largest side of the boxes that cover pixels with known labels, px."""

ReadLabels = Callable[[Box], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class CellCounts:
    """Pixels per class and cell.

    Attributes:
        shape: (rows, columns) of the image, px.
        pixels: (rows, columns, classes + 1) pixels of each cell; the last class is `NOTHING`.
            Estimated if only every `stride`-th pixel was looked at.
        stride: px of the image per px looked at, along each side.
    """

    shape: Shape
    pixels: NDArray[np.uint16]
    stride: int

    @classmethod
    def count(cls, read: ReadLabels, shape: Shape, classes: int, stride: int = 1) -> CellCounts:
        """Count the pixels of an image.

        Args:
            read: returns the labels in a box of the grid of every `stride`-th pixel.
            shape: (rows, columns) of the image, px.
            classes: number of classes.
            stride: px of the image per px of that grid; divides `CELL`.
        """
        rows, columns = -(-shape[0] // CELL), -(-shape[1] // CELL)
        pixels = np.zeros((rows, columns, classes + 1), np.uint16)
        side = CELL // stride
        whole = Box(0, 0, -(-shape[0] // stride), -(-shape[1] // stride))
        for box in whole.tiles(side * AT_ONCE):
            counts = _count(read(box), side, classes)
            y, x = box.y0 // side, box.x0 // side
            pixels[y : y + counts.shape[0], x : x + counts.shape[1]] = counts * stride**2
        return cls(shape, pixels, stride)

    @property
    def totals(self) -> NDArray[np.int64]:
        """(classes + 1,) pixels of each class, and of no class."""
        totals: NDArray[np.int64] = self.pixels.sum(axis=(0, 1), dtype=np.int64)
        return totals

    def draw_cell(self, index: int | None, rng: np.random.Generator) -> Box:
        """Return a random cell, with a probability proportional to its pixels of a class.

        Args:
            index: index of the class; None: all pixels with known labels.
            rng: random generator.

        Raises:
            ValueError: there are no such pixels.
        """
        counts = self._known() if index is None else self.pixels[..., index]
        cumulated = np.cumsum(counts, dtype=np.int64)
        if not cumulated[-1]:
            raise ValueError(f"there are no pixels of class {index}")
        number = int(np.searchsorted(cumulated, rng.integers(cumulated[-1]), "right"))
        return self._box(*divmod(number, counts.shape[1]))

    def areas(self) -> Iterator[Box]:
        """Yield boxes of at most `AREA` px per side that cover all pixels with known labels."""
        known = self._known() > 0
        side = AREA // CELL
        for cells in Box.from_shape((known.shape[0], known.shape[1])).tiles(side):
            here = known[cells.slices()]
            if here.any():
                rows, columns = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
                first = self._box(cells.y0 + int(rows[0]), cells.x0 + int(columns[0]))
                last = self._box(cells.y0 + int(rows[-1]), cells.x0 + int(columns[-1]))
                yield first.union(last)

    def _known(self) -> NDArray[np.int64]:
        """Return the number of pixels with known labels in each cell."""
        known: NDArray[np.int64] = self.pixels.sum(axis=2, dtype=np.int64)
        return known

    def _box(self, row: int, column: int) -> Box:
        """Return a cell, px of the image."""
        y, x = row * CELL, column * CELL
        return Box(y, x, y + CELL, x + CELL).intersection(Box.from_shape(self.shape))


def _count(labels: NDArray[np.uint8], side: int, classes: int) -> NDArray[np.int64]:
    """Return the (rows, columns, classes + 1) pixels of each cell of `side` px per side."""
    height, width = labels.shape
    rows, columns = -(-height // side), -(-width // side)
    slots = np.full(256, classes + 1, np.int64)
    slots[:classes] = np.arange(classes)
    slots[NOTHING] = classes
    slots[IGNORED] = classes + 1
    cells = (np.arange(height) // side)[:, None] * columns + np.arange(width) // side
    counts = np.bincount(
        (cells * (classes + 2) + slots[labels]).ravel(), minlength=rows * columns * (classes + 2)
    )
    return counts.reshape(rows, columns, classes + 2)[..., :-1]

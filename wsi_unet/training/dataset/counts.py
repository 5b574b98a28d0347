"""Where in an image which class is: how many of its pixels each cell of a coarse grid has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape
from wsi_unet.training.fields import IGNORED, NOTHING

CELL = 128
"""px: side of a cell; its number of pixels fits 16 bits."""
AT_ONCE = 16
"""Cells per side that are counted at a time."""
AREA = 2048
"""px: side of the boxes that what is known is given in."""

ReadLabels = Callable[[Box], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class CellCounts:
    """Pixels per class and cell.

    Attributes:
        shape: (rows, columns) of the image, px.
        pixels: (rows, columns, classes + 1) of the cells; the last number is of `NOTHING`. Of
            each cell about as many as it has pixels, if only some were looked at.
        stride: px of the image for one that was looked at, per side.
    """

    shape: Shape
    pixels: NDArray[np.uint16]
    stride: int

    @classmethod
    def count(cls, read: ReadLabels, shape: Shape, classes: int, stride: int = 1) -> CellCounts:
        """Look at an image.

        Args:
            read: the labels of a box of every `stride`-th pixel per side.
            shape: (rows, columns) of the image, px.
            classes: how many there are.
            stride: px; divides `CELL`.
        """
        rows, columns = -(-shape[0] // CELL), -(-shape[1] // CELL)
        pixels = np.zeros((rows, columns, classes + 1), np.uint16)
        side = CELL // stride
        looked_at = Box(0, 0, -(-shape[0] // stride), -(-shape[1] // stride))
        for box in looked_at.tiles(side * AT_ONCE):
            counts = _count(read(box), side, classes)
            y, x = box.y0 // side, box.x0 // side
            pixels[y : y + counts.shape[0], x : x + counts.shape[1]] = counts * stride**2
        return cls(shape, pixels, stride)

    @property
    def totals(self) -> NDArray[np.int64]:
        """(classes + 1,) pixels of each class, and of none."""
        totals: NDArray[np.int64] = self.pixels.sum(axis=(0, 1), dtype=np.int64)
        return totals

    def cell(self, index: int | None, rng: np.random.Generator) -> Box:
        """Return a random cell: the more pixels of a class it has, the likelier.

        Args:
            index: of the class; None: of all that is known.
            rng: source of chance.

        Raises:
            ValueError: there are none.
        """
        counts = self._known() if index is None else self.pixels[..., index]
        until = np.cumsum(counts, dtype=np.int64)
        if not until[-1]:
            raise ValueError(f"there are no pixels of class {index}")
        place = int(np.searchsorted(until, rng.integers(until[-1]), "right"))
        return self._box(*divmod(place, counts.shape[1]))

    def areas(self) -> Iterator[Box]:
        """Yield what is known in boxes of at most `AREA` px per side, made of whole cells."""
        known = self._known() > 0
        side = AREA // CELL
        for part in Box.of_shape((known.shape[0], known.shape[1])).tiles(side):
            there = known[part.slices()]
            if there.any():
                rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
                first = self._box(part.y0 + int(rows[0]), part.x0 + int(columns[0]))
                last = self._box(part.y0 + int(rows[-1]), part.x0 + int(columns[-1]))
                yield first.union(last)

    def _known(self) -> NDArray[np.int64]:
        known: NDArray[np.int64] = self.pixels.sum(axis=2, dtype=np.int64)
        return known

    def _box(self, row: int, column: int) -> Box:
        y, x = row * CELL, column * CELL
        return Box(y, x, y + CELL, x + CELL).intersection(Box.of_shape(self.shape))


def _count(labels: NDArray[np.uint8], side: int, classes: int) -> NDArray[np.int64]:
    """Return (rows, columns, classes + 1) pixels of each cell of `side` px per side."""
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

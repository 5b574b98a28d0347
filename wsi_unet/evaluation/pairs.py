"""Prediction and truth side by side, box by box, with what is compared of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import EvaluationError
from wsi_unet.evaluation.drawing import Drawing
from wsi_unet.evaluation.sources import Source
from wsi_unet.evaluation.truths import Truth, in_boxes
from wsi_unet.geometry import BlockGrid, Box, Shape

SIDE = 2048
"""px: side of the boxes that are compared at once."""
SMALLEST_SIDE = 64
"""px: where the truth is much finer, boxes are smaller, but not smaller than this."""


@dataclass(frozen=True, eq=False)
class PairPixels:
    """Prediction and truth of a box, each (h, w), from 0; what isn't valid isn't compared."""

    truth: NDArray[np.integer[Any]]
    prediction: NDArray[np.integer[Any]]
    valid: NDArray[np.bool_]

    @property
    def objects(self) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
        """Truth and prediction with 0 where they aren't valid."""
        return self.truth * self.valid, self.prediction * self.valid


@dataclass(frozen=True, eq=False)
class Pair:
    """A prediction and its truth.

    Attributes:
        prediction: whose pixels all boxes are given in.
        truth: on the same pixels.
        area: the pixels that are looked at.
        ignored: values of the truth whose pixels aren't compared.
        within: annotations outside of which nothing is compared.
    """

    prediction: Source
    truth: Truth
    area: Box
    ignored: frozenset[int] = frozenset()
    within: Drawing | None = None

    def read(self, box: Box) -> PairPixels:
        """Read a box of the area.

        Raises:
            EvaluationError: something can't be read, or holds numbers below 0.
        """
        valid = np.ones(box.shape, np.bool_)
        if self.within is not None:
            valid = self.within.read(box) > 0
        if self.prediction.computed is not None:
            valid &= in_boxes(self.prediction.computed, box)
        if not valid.any():
            nothing = np.zeros(box.shape, np.uint8)
            return PairPixels(nothing, nothing, valid)
        truth, known = self.truth.read(box)
        valid &= known
        if self.ignored:
            valid &= ~np.isin(truth, list(self.ignored))
        prediction = self.prediction.pixels.read(box)
        for name, values in ((self.truth.name, truth), (self.prediction.name, prediction)):
            if values.dtype.kind == "i" and values.min() < 0:
                raise EvaluationError(f"{name}: holds {values.min()}; labels are 0 or more")
        return PairPixels(truth, prediction, valid)

    def blocks(self, side: int | None = None) -> Blocks:
        """Return the boxes that the area is cut into.

        Args:
            side: px; chosen by how both are stored if None.
        """
        return Blocks(self.area, self._side() if side is None else side)

    def _side(self) -> int:
        side = max(SMALLEST_SIDE, int(SIDE / self.truth.scale))
        chunk = self.prediction.chunk
        # A lazy array's chunk is computed as a whole, so it should lie in few boxes.
        return side if chunk is None or max(chunk) > side else side // max(chunk) * max(chunk)


@dataclass(frozen=True)
class Blocks:
    """An area cut into boxes: (row, column) and px."""

    area: Box
    side: int

    @property
    def grid(self) -> BlockGrid:
        """The boxes, counted from the area's first pixel."""
        shape: Shape = self.area.shape
        return BlockGrid(shape, self.side)

    def core(self, index: tuple[int, int]) -> Box:
        """Return the box in row and column `index`."""
        return self.grid.core(index).shift(self.area.y0, self.area.x0)

    def window(self, core: Box, halo: int) -> Box:
        """Return a box with so many px around it, as far as the area reaches."""
        return core.grow(halo, halo).intersection(self.area)

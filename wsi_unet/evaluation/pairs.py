"""Prediction and truth side by side, box by box, with what is compared of them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import EvaluationError
from wsi_unet.evaluation.classes import Key, find_ignored
from wsi_unet.geometry import BlockGrid, Box, Shape
from wsi_unet.ground_truth.drawing import Drawing, read_drawing
from wsi_unet.ground_truth.grids import Region
from wsi_unet.ground_truth.sources import Labels, LabelSource, open_label_source
from wsi_unet.ground_truth.truths import Truth, in_boxes, open_truth

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


@dataclass(frozen=True)
class Comparison:
    """What is compared, so that any process can open it.

    Attributes:
        prediction: label values, or where they are.
        truth: the same, or annotations.
        label: the label group of the prediction, if it holds several.
        truth_label: the same of the truth.
        ignore: values or names in the truth whose pixels aren't compared.
        region: (x, y, width, height) outside of which nothing is compared, full-resolution px.
        within: annotations outside of whose outlines nothing is compared.
        number: of this comparison: what a process has open is of no use for another one, before
            which files may have been written anew.
    """

    prediction: Labels
    truth: Labels
    label: str | None = None
    truth_label: str | None = None
    ignore: tuple[Key, ...] = ()
    region: Region | None = None
    within: Path | None = None
    number: str = field(default_factory=lambda: uuid.uuid4().hex)


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

    prediction: LabelSource
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

    def blocks(self, side: int | None = None) -> AreaBlocks:
        """Return the boxes that the area is cut into.

        Args:
            side: px; chosen by how both are stored if None.
        """
        return AreaBlocks(self.area, self._side() if side is None else side)

    def _side(self) -> int:
        side = max(SMALLEST_SIDE, int(SIDE / self.truth.scale))
        chunk = self.prediction.chunk
        # A lazy array's chunk is computed as a whole, so it should lie in few boxes.
        return side if chunk is None or max(chunk) > side else side // max(chunk) * max(chunk)


@dataclass(frozen=True)
class AreaBlocks:
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


def open_pair(question: Comparison) -> Pair:
    """Open what is compared.

    Raises:
        EvaluationError: they can't be read or compared, or there is nothing to compare.
        AnnotationError: annotations can't be read, or lie outside of the slide.
        OptionError: a class that is to be ignored isn't there.
        OutputError: a folder is no output of ours, or has no such label group.
    """
    source = open_label_source(question.prediction, question.label)
    within = None if question.within is None else read_drawing(question.within, source.grid)
    truth = open_truth(question.truth, source, question.truth_label)
    ignored = find_ignored(truth, question.ignore)
    area = _area(source, question.region, within)
    return Pair(source, truth, area, ignored, within)


def _area(source: LabelSource, region: Region | None, within: Drawing | None) -> Box:
    """Return the box outside of which nothing is looked at, px of the prediction.

    Raises:
        EvaluationError: it is empty.
    """
    area = Box.of_shape(source.grid.shape)
    if region is not None:
        area = area.intersection(source.grid.box_of(region))
        if not area.area:
            raise EvaluationError(
                f"{source.name}: the region {','.join(map(str, region))} lies outside of it; give "
                "X,Y,W,H in full-resolution pixels"
            )
    if within is not None:
        area = area.intersection(within.extent())
    if not area.area:
        raise EvaluationError(f"{source.name}: nothing of it lies in the regions to compare")
    return area

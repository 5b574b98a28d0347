"""Prediction and truth, read side by side, box by box, with a mask of what is compared."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import EvaluationError
from wsi_unet.evaluation.class_mapping import ClassId, find_ignored
from wsi_unet.geometry import BlockGrid, Box
from wsi_unet.ground_truth.annotation_rasters import AnnotationRaster, open_annotation_raster
from wsi_unet.ground_truth.grids import Region
from wsi_unet.ground_truth.label_rasters import LabelRaster, LabelsLike, open_label_raster
from wsi_unet.ground_truth.truth import LabelTruth, Truth, open_truth

if TYPE_CHECKING:
    from wsi_unet.evaluation.stored_objects import ObjectNumbers

SIDE = 2048
"""px: side of the boxes that are compared at once."""
SMALLEST_SIDE = 64
"""px: where the truth is much finer, boxes are smaller, but not smaller than this."""


@dataclass(frozen=True, eq=False)
class PairPixels:
    """Values of prediction and truth in a box.

    Attributes:
        truth: (h, w) values, at least 0.
        prediction: (h, w) values, at least 0.
        valid: (h, w) which pixels are compared.
        unpredicted: (h, w) which pixels would be compared if the model had looked there.
        truth_objects: (h, w) numbers of the truth's stored objects; None if its values say which
            they are.
        prediction_objects: (h, w) numbers of the prediction's stored objects; likewise.
    """

    truth: NDArray[np.integer[Any]]
    prediction: NDArray[np.integer[Any]]
    valid: NDArray[np.bool_]
    unpredicted: NDArray[np.bool_]
    truth_objects: NDArray[np.int64] | None = None
    prediction_objects: NDArray[np.int64] | None = None

    @property
    def objects(self) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
        """What says the objects of truth and prediction, with 0 where they aren't compared."""
        truth = self.truth if self.truth_objects is None else self.truth_objects
        prediction = self.prediction if self.prediction_objects is None else self.prediction_objects
        return truth * self.valid, prediction * self.valid


@dataclass(frozen=True)
class Comparison:
    """What is compared with what, in a form that any process can open.

    Attributes:
        prediction: label values, or their path or URL.
        truth: label values, their path or URL, or the path of annotations.
        label: label group of the prediction, if it holds several.
        truth_label: label group of the truth, if it holds several.
        ignore: values or names in the truth whose pixels aren't compared.
        region: (x, y, width, height) outside of which nothing is compared, full-resolution px.
        within: annotations outside of whose outlines nothing is compared.
        objects: whether objects are compared, so that those which are stored are read.
        number: identifies this comparison: files may change between two, so a process doesn't
            reuse what it opened for another one.
    """

    prediction: LabelsLike
    truth: LabelsLike
    label: str | None = None
    truth_label: str | None = None
    ignore: tuple[ClassId, ...] = ()
    region: Region | None = None
    within: Path | None = None
    objects: bool = False
    number: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, eq=False)
class Pair:
    """An open prediction and its truth.

    Attributes:
        prediction: the prediction; all boxes are in its pixels.
        truth: the truth of the same pixels.
        area: the box outside of which nothing is read.
        ignored: values of the truth whose pixels aren't compared.
        within: annotations outside of which nothing is compared.
        stored: the stored objects of the truth and of the prediction, as far as there are any.
        truth_objects: those of the truth, on the prediction's pixels.
    """

    prediction: LabelRaster
    truth: Truth
    area: Box
    ignored: frozenset[int] = frozenset()
    within: AnnotationRaster | None = None
    stored: tuple[ObjectNumbers | None, ObjectNumbers | None] = (None, None)
    truth_objects: Truth | None = None

    @property
    def tables(self) -> tuple[str | None, str | None]:
        """What identifies the tables of the stored objects of truth and prediction."""
        truth, prediction = (None if each is None else each.signature for each in self.stored)
        return truth, prediction

    def read(self, box: Box) -> PairPixels:
        """Read a box of the area.

        Raises:
            EvaluationError: something can't be read, or holds values below 0.
        """
        valid, nowhere = np.ones(box.shape, np.bool_), np.zeros(box.shape, np.bool_)
        if self.within is not None:
            valid = self.within.read(box) > 0
        if not valid.any():
            nothing = np.zeros(box.shape, np.uint8)
            return PairPixels(nothing, nothing, valid, unpredicted=nowhere)
        truth, known = self.truth.read(box)
        valid &= known
        if self.ignored:
            valid &= ~np.isin(truth, list(self.ignored))
        unpredicted = nowhere
        if self.prediction.predicted is not None:
            predicted = self.prediction.predicted.read(box)
            valid, unpredicted = valid & predicted, valid & ~predicted
        prediction = self.prediction.pixels.read(box)
        for name, values in ((self.truth.name, truth), (self.prediction.name, prediction)):
            if values.dtype.kind == "i" and values.min() < 0:
                raise EvaluationError(f"{name}: holds {values.min()}; labels are 0 or more")
        return PairPixels(truth, prediction, valid, unpredicted, *self._read_objects(box))

    def _read_objects(self, box: Box) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """Return the numbers of the stored objects of truth and prediction; None without any."""
        _, prediction = self.stored
        return (
            None if self.truth_objects is None else self.truth_objects.read(box)[0],
            None if prediction is None else prediction.read(box),
        )

    def cut(self, side: int | None = None) -> AreaBoxes:
        """Cut the area into boxes.

        Args:
            side: px; None chooses it by how prediction and truth are stored.
        """
        return AreaBoxes(self.area, self._choose_side() if side is None else side)

    def _choose_side(self) -> int:
        side = max(SMALLEST_SIDE, int(SIDE / self.truth.scale))
        chunk = self.prediction.chunk
        # A lazy array's chunk is computed as a whole, so it should lie in few boxes.
        return side if chunk is None or max(chunk) > side else side // max(chunk) * max(chunk)


@dataclass(frozen=True)
class AreaBoxes:
    """The square boxes that an area is cut into.

    Attributes:
        area: px of the prediction.
        side: side of a box, px; boxes at the end of the area may be smaller.
    """

    area: Box
    side: int

    @property
    def grid(self) -> BlockGrid:
        """The boxes by (row, column), relative to the area's first pixel."""
        return BlockGrid(self.area.shape, self.side)

    def core(self, index: tuple[int, int]) -> Box:
        """Return the box in row and column `index`, px of the prediction."""
        return self.grid.core(index).shift(self.area.y0, self.area.x0)

    def widen(self, core: Box, halo: int) -> Box:
        """Return a box with `halo` px around it, clipped to the area."""
        return core.grow(halo, halo).intersection(self.area)


def open_pair(comparison: Comparison) -> Pair:
    """Open what is compared.

    Raises:
        EvaluationError: they can't be read or compared, or there is nothing to compare.
        AnnotationError: annotations can't be read, or lie outside of the slide.
        OptionError: a class that is to be ignored doesn't exist.
        OutputError: a folder isn't an output of wsi-unet, or has no such label group.
    """
    prediction = open_label_raster(comparison.prediction, comparison.label)
    within = None
    if comparison.within is not None:
        within = open_annotation_raster(comparison.within, prediction.grid)
    truth = open_truth(comparison.truth, prediction, comparison.truth_label)
    ignored = find_ignored(truth, comparison.ignore)
    area = _find_area(prediction, comparison.region, within)
    pair = Pair(prediction, truth, area, ignored, within)
    return _add_stored_objects(pair, comparison) if comparison.objects else pair


def _add_stored_objects(pair: Pair, comparison: Comparison) -> Pair:
    """Return a pair with the objects that are stored of either.

    Raises:
        OutputError: a folder isn't an output of wsi-unet.
    """
    # It imports pyarrow and shapely, which nothing else here needs.
    from wsi_unet.evaluation.stored_objects import find_stored_objects

    prediction = find_stored_objects(comparison.prediction, comparison.label)
    truth = pair.truth
    if not isinstance(truth, LabelTruth):
        return replace(pair, stored=(None, prediction))
    stored = find_stored_objects(comparison.truth, comparison.truth_label)
    objects = None
    if stored is not None:
        raster = replace(truth.raster, pixels=stored, predicted=None)
        objects = replace(truth, raster=raster)
    return replace(pair, stored=(stored, prediction), truth_objects=objects)


def _find_area(
    prediction: LabelRaster, region: Region | None, within: AnnotationRaster | None
) -> Box:
    """Return the box outside of which nothing is compared, px of the prediction.

    Raises:
        EvaluationError: it is empty.
    """
    area = Box.from_shape(prediction.grid.shape)
    if region is not None:
        area = area.intersection(prediction.grid.find_box(region))
        if not area.area:
            raise EvaluationError(
                f"{prediction.name}: the region {','.join(map(str, region))} lies outside of it; "
                "give X,Y,W,H in full-resolution pixels"
            )
    if within is not None:
        area = area.intersection(within.extent())
    if not area.area:
        raise EvaluationError(f"{prediction.name}: no part of it lies in the regions to compare")
    return area

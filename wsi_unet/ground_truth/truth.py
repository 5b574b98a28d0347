"""The ground truth on the prediction's pixels: another label image, or annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from typing_extensions import override

from wsi_unet.errors import OutputError
from wsi_unet.geometry import Box
from wsi_unet.ground_truth.annotation_rasters import (
    AnnotationFacts,
    AnnotationRaster,
    annotation_path,
    is_annotation_file,
    open_annotation_raster,
)
from wsi_unet.ground_truth.grids import NearestPixels, match_grids, scale_between
from wsi_unet.ground_truth.label_rasters import LabelRaster, LabelsLike, open_label_raster


class Truth(Protocol):
    """The true labels of a prediction's pixels."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def names(self) -> Mapping[int, str] | None:
        """Class names by value; None where values have none."""

    @property
    def numbered(self) -> bool:
        """Whether values may be numbers of objects rather than classes."""

    @property
    def annotations(self) -> AnnotationFacts | None:
        """How many annotations there are; None if the truth is a label image."""

    @property
    def scale(self) -> float:
        """Number of pixels of the truth, per side, that are read for one of the prediction."""

    def read(self, box: Box) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
        """Return values (h, w) of a box of the prediction, and where they are known."""


@dataclass(frozen=True, eq=False)
class LabelTruth(Truth):
    """A label image as the truth; each pixel of the prediction takes its nearest pixel.

    Attributes:
        raster: the label image.
        nearest: which of its pixels is nearest to each pixel of the prediction.
    """

    raster: LabelRaster
    nearest: NearestPixels

    @property
    @override
    def name(self) -> str:
        return self.raster.name

    @property
    @override
    def names(self) -> Mapping[int, str] | None:
        return self.raster.classes

    @property
    @override
    def numbered(self) -> bool:
        return self.raster.classes is None

    @property
    @override
    def annotations(self) -> None:
        return None

    @property
    @override
    def scale(self) -> float:
        return scale_between(self.nearest)

    @override
    def read(self, box: Box) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
        rows, columns = self.nearest[0][box.y0 : box.y1], self.nearest[1][box.x0 : box.x1]
        known = (rows >= 0)[:, None] & (columns >= 0)
        if not known.any():
            return np.zeros(box.shape, np.uint8), known
        y, x = rows[rows >= 0], columns[columns >= 0]
        window = Box(int(y[0]), int(x[0]), int(y[-1]) + 1, int(x[-1]) + 1)
        values = self.raster.pixels.read(window)
        rows, columns = np.clip(rows, window.y0, y[-1]), np.clip(columns, window.x0, x[-1])
        rows, columns = rows - window.y0, columns - window.x0
        if self.raster.predicted is not None:
            known = known & self.raster.predicted.read(window)[rows[:, None], columns]
        if window.shape == box.shape and all(
            (np.diff(axis) == 1).all() for axis in (rows, columns)
        ):
            return values, known  # the same pixels, one by one
        return values[rows[:, None], columns], known


@dataclass(frozen=True, eq=False)
class AnnotationTruth(Truth):
    """Annotations as the truth; outside of them is background, and all pixels are known.

    Attributes:
        raster: the annotations, on the prediction's grid.
    """

    raster: AnnotationRaster

    @property
    @override
    def name(self) -> str:
        return str(self.raster.path)

    @property
    @override
    def names(self) -> Mapping[int, str]:
        return self.raster.names

    @property
    @override
    def numbered(self) -> bool:
        return True

    @property
    @override
    def annotations(self) -> AnnotationFacts:
        return self.raster.facts

    @property
    @override
    def scale(self) -> float:
        return 1.0

    @override
    def read(self, box: Box) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
        return self.raster.read(box), np.ones(box.shape, np.bool_)


def open_truth(labels: LabelsLike, prediction: LabelRaster, name: str | None = None) -> Truth:
    """Open the truth of a prediction.

    Args:
        labels: a label OME-Zarr, an image, an open array, or GeoJSON or ASAP XML in full-resolution
            px.
        prediction: the labels on whose pixels the truth is read.
        name: name of the label group, if an OME-Zarr holds several.

    Raises:
        EvaluationError: it can't be read, isn't finished or lies on other pixels.
        AnnotationError: annotations can't be read, or lie outside of the slide.
        OutputError: the folder isn't an output of wsi-unet, or has no such label group.
    """
    if not isinstance(labels, xr.DataArray) and is_annotation_file(labels):
        return AnnotationTruth(open_annotation_raster(annotation_path(labels), prediction.grid))
    try:
        raster = open_label_raster(labels, name)
    except OutputError as error:  # its option has another name here
        raise OutputError(str(error).replace("`label`", "`truth_label`")) from error
    nearest = match_grids(prediction.grid, raster.grid, prediction.name, raster.name)
    return LabelTruth(raster, nearest)

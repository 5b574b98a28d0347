"""The truth on the prediction's pixels, whatever it is kept as."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsi_unet import locations
from wsi_unet.annotations.reading import HEAD, begins_like_annotations
from wsi_unet.geometry import Box
from wsi_unet.ground_truth.drawing import (
    AnnotationFacts,
    Drawing,
    annotation_path,
    read_drawing,
)
from wsi_unet.ground_truth.grids import Places, match_grids, scale_between
from wsi_unet.ground_truth.sources import Labels, LabelSource, open_label_source


class Truth(Protocol):
    """What is true of the pixels of a prediction."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def names(self) -> Mapping[int, str] | None:
        """Class names by value; None where values have none."""

    @property
    def numbered(self) -> bool:
        """Whether values may be numbers of objects rather than classes."""

    @property
    def drawn(self) -> AnnotationFacts | None:
        """What was drawn, None if it wasn't."""

    @property
    def scale(self) -> float:
        """Pixels of the truth, per side, that are read for one of the prediction."""

    def read(self, box: Box) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
        """Return values (h, w) of a box of the prediction, and where they are known."""


@dataclass(frozen=True, eq=False)
class GridTruth:
    """Another label image; each pixel of the prediction takes the nearest of its pixels."""

    source: LabelSource
    places: Places
    drawn: None = None

    @property
    def name(self) -> str:
        """For messages."""
        return self.source.name

    @property
    def names(self) -> Mapping[int, str] | None:
        """Class names by value; None for an image."""
        return self.source.classes

    @property
    def numbered(self) -> bool:
        """Whether values may be numbers of objects: those of images may."""
        return self.source.classes is None

    @property
    def scale(self) -> float:
        """Pixels of the truth, per side, that are read for one of the prediction."""
        return scale_between(self.places)

    def read(self, box: Box) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
        """Return values (h, w) of a box of the prediction, and where they are known."""
        rows, columns = self.places[0][box.y0 : box.y1], self.places[1][box.x0 : box.x1]
        known = (rows >= 0)[:, None] & (columns >= 0)
        if not known.any():
            return np.zeros(box.shape, np.uint8), known
        y, x = rows[rows >= 0], columns[columns >= 0]
        window = Box(int(y[0]), int(x[0]), int(y[-1]) + 1, int(x[-1]) + 1)
        values = self.source.pixels.read(window)
        rows, columns = np.clip(rows, window.y0, y[-1]), np.clip(columns, window.x0, x[-1])
        if self.source.computed is not None:
            known = known & _in_any(self.source.computed, rows, columns)
        rows, columns = rows - window.y0, columns - window.x0
        if window.shape == box.shape and all(
            (np.diff(axis) == 1).all() for axis in (rows, columns)
        ):
            return values, known  # pixel by pixel the same
        return values[rows[:, None], columns], known


@dataclass(frozen=True, eq=False)
class DrawnTruth:
    """Annotations; outside of them is background."""

    drawing: Drawing
    numbered: bool = True
    scale: float = 1.0

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.drawing.path)

    @property
    def names(self) -> Mapping[int, str]:
        """The class of each annotation."""
        return self.drawing.names

    @property
    def drawn(self) -> AnnotationFacts:
        """What was drawn."""
        return self.drawing.facts

    def read(self, box: Box) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
        """Return numbers of annotations (h, w) of a box; all are known."""
        return self.drawing.read(box), np.ones(box.shape, np.bool_)


def open_truth(labels: Labels, prediction: LabelSource, name: str | None = None) -> Truth:
    """Open the truth of a prediction.

    Args:
        labels: a label OME-Zarr, an image, an open array, or GeoJSON or ASAP XML in full-resolution
            px.
        prediction: whose pixels are asked for.
        name: of the label group, if an OME-Zarr holds several.

    Raises:
        EvaluationError: it can't be read, isn't finished or lies on other pixels.
        AnnotationError: annotations can't be read, or lie outside of the slide.
        OutputError: the folder is no output of ours, or has no such label group.
    """
    if not isinstance(labels, xr.DataArray) and is_drawn(labels):
        return DrawnTruth(read_drawing(annotation_path(labels), prediction.grid))
    source = open_label_source(labels, name)
    return GridTruth(
        source, match_grids(prediction.grid, source.grid, prediction.name, source.name)
    )


def in_boxes(boxes: tuple[Box, ...], box: Box) -> NDArray[np.bool_]:
    """Return which pixels (h, w) of a box lie in any of several boxes."""
    return _in_any(boxes, np.arange(box.y0, box.y1), np.arange(box.x0, box.x1))


def _in_any(
    boxes: tuple[Box, ...], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.bool_]:
    found = np.zeros((len(rows), len(columns)), np.bool_)
    for box in boxes:
        inside = (rows >= box.y0) & (rows < box.y1)
        found |= inside[:, None] & (columns >= box.x0) & (columns < box.x1)
    return found


def is_drawn(place: str | os.PathLike[str]) -> bool:
    """Whether a file begins as annotations do, JSON or XML."""
    location = locations.resolve(os.fspath(place))
    if locations.is_url(location):
        return location.lower().endswith(("json", ".xml"))
    try:
        with Path(location).open("rb") as file:
            return begins_like_annotations(file.read(HEAD))
    except OSError:
        return False  # a folder; or what opening it will say

"""Fields read from files: an image or slide, and its ground truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import TrainingError
from wsi_unet.geometry import Box, Shape, reflect
from wsi_unet.process_cache import ProcessCache
from wsi_unet.slides.resample import Raster
from wsi_unet.training.dataset.counts import CellCounts
from wsi_unet.training.dataset.files import DataFile
from wsi_unet.training.fields import IGNORED, NOTHING, FieldWindow
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.targets.labelling import Labelling
from wsi_unet.training.targets.truth_files import OpenTruth, TruthFile

AT_ONCE = 2048
"""Side of the boxes in which a whole field is read, px."""
TRIES = 100
"""How often a random pixel of a class is looked for."""
FEW = 100
"""Counted pixels of a class below which, if not all pixels were looked at, its polygons' areas
are the better estimate."""


@dataclass(frozen=True, eq=False)
class FieldPixels:
    """Pixels of a field, or of a box in it; see `FieldWindow`.

    Attributes:
        image: (h, w, 3).
        labels: (h, w).
        separation: (h, w); None if the recipe wants none.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    separation: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class FieldReader:
    """Reads a field from its files.

    Attributes:
        file: paths of the image and its truth.
        image: how the image is read.
        truth: how the truth is read.
        labelling: how labels are made from the truth.
        opened: images and truths that are open, of all fields.
    """

    file: DataFile
    image: TrainingImage
    truth: TruthFile
    labelling: Labelling
    opened: ProcessCache[Any]

    def open_image(self) -> Raster:
        """Return the image, open in this process."""
        raster: Raster = self.opened.get(("image", self.file), self.image.open, self.image.cost)
        return raster

    def open_truth(self) -> OpenTruth:
        """Return the truth, open in this process."""
        truth: OpenTruth = self.opened.get(
            ("truth", self.file), lambda: self.truth.open(self.image), self.truth.cost
        )
        return truth

    def read(self, box: Box) -> FieldPixels:
        """Return a box inside the field."""
        labels, separation = self.labelling.read(self.open_truth(), box)
        return FieldPixels(self.open_image().read(box), labels, separation)

    def read_all(self) -> FieldPixels:
        """Return the whole field; its files aren't kept open."""
        raster, truth = self.image.open(), self.truth.open(self.image)
        weighted = self.labelling.weighting.separation > 0
        labels = np.empty(self.image.shape, np.uint8)
        separation = np.zeros(self.image.shape if weighted else (0, 0), np.float32)
        whole = Box.from_shape(self.image.shape)
        for box in whole.tiles(AT_ONCE):
            labels[box.slices()], weights = self.labelling.read(truth, box)
            if weighted:
                separation[box.slices()] = weights
        return FieldPixels(raster.read(whole), labels, separation if weighted else None)


class DataField:
    """A field read from files; safe to use in several threads and processes.

    Args:
        reader: reads the field from its files.
        counts: pixels of each class, by cell.
        pixels: the whole field, if it is kept in memory; None: it is read window by window.
    """

    def __init__(self, reader: FieldReader, counts: CellCounts, pixels: FieldPixels | None) -> None:
        self._reader = reader
        self._counts = counts
        self._pixels = pixels
        self._keep = pixels is not None

    @property
    def name(self) -> str:
        """The image's path, relative to the data folder if it lies inside."""
        return self._reader.file.name

    @property
    def patient(self) -> str:
        """Patient that the image is of."""
        return self._reader.file.patient

    def number_objects(self, box: Box) -> NDArray[np.integer[Any]]:
        """Return the numbers (h, w) of the truth's objects in a box inside the field, 0 for none.

        Needs a truth that numbers its objects, or a recipe that keeps objects apart.
        """
        return self._reader.labelling.number_objects(self._reader.open_truth(), box)

    @property
    def source(self) -> int:
        """Number of the data source in the recipe."""
        return self._reader.file.source

    @property
    def shape(self) -> Shape:
        """(rows, columns) of the grid, px."""
        return self._reader.image.shape

    @property
    def names(self) -> frozenset[str]:
        """Names of classes in the truth; empty if its classes have values instead."""
        return self._reader.truth.names

    @property
    def downsample(self) -> tuple[float, float]:
        """(y, x) px of the image per px of the grid."""
        return self._reader.image.resampling.downsample

    @cached_property
    def amounts(self) -> Mapping[int, float]:
        """Number of pixels of each class and of `NOTHING`, by index; estimated for large fields."""
        totals = self._counts.totals.tolist()
        amounts = dict(enumerate(map(float, totals[:-1])))
        if totals[-1]:
            amounts[NOTHING] = float(totals[-1])
        if self._counts.stride > 1:
            amounts |= self._better_amounts(amounts)
        return amounts

    def _better_amounts(self, amounts: Mapping[int, float]) -> dict[int, float]:
        """Return the amounts for which the truth itself has better estimates than the counts."""
        pixel = math.prod(self.downsample)
        contents = self._reader.truth.contents
        better = {i: contents[i] / pixel for i, px in amounts.items() if px and i in contents}
        polygons = self._reader.open_truth().polygons
        if polygons is not None:
            for index, amount in amounts.items():
                drawn = float(polygons.areas[polygons.labels == index].sum())
                rare = amount < FEW * self._counts.stride**2 and amount < drawn
                # All polygons of a class may lie below others, or where labels are unknown.
                if rare and self._point_in_polygon(index, np.random.default_rng(0)):
                    better[index] = drawn
        return better

    @cached_property
    def areas(self) -> Sequence[Box]:
        """Boxes of at most 2048 px per side that cover all pixels with known labels."""
        return tuple(self._counts.areas())

    def read(self, window: Box) -> FieldWindow:
        """Return a window; beyond the field's edges, the field is mirrored.

        Raises:
            InputError: the image or the truth can't be read there (any more).
            ValueError: the window is empty.
        """
        if not window.area:
            raise ValueError(f"nothing to read: {window} is empty")
        rows = reflect(window.y0, window.y1, self.shape[0])
        columns = reflect(window.x0, window.x1, self.shape[1])
        box = Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        pixels = self._read(box)
        rows, columns = rows - box.y0, columns - box.x0
        if pixels.separation is None:
            separation = np.zeros(window.shape, np.float32)
        else:
            separation = _gather(pixels.separation, rows, columns)
        return FieldWindow(
            image=_gather(pixels.image, rows, columns),
            labels=_gather(pixels.labels, rows, columns),
            separation=separation,
        )

    def point(self, index: int | None, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random pixel (y, x) of a class; None: of all pixels with known labels.

        If all pixels were counted, each is equally likely. If not, first a polygon is drawn by its
        area, or else a cell of 128 px per side by its estimated pixels of the class, and then a
        pixel in it.

        Raises:
            TrainingError: no such pixel was found.
        """
        pixel = None
        if index is not None and self._counts.stride > 1:
            pixel = self._point_in_polygon(index, rng)
        pixel = pixel or self._point_in_cell(index, rng)
        if pixel is None:
            raise TrainingError(f"{self.name}: no pixel of class {index} was found in it")
        return pixel

    def _point_in_polygon(self, index: int, rng: np.random.Generator) -> tuple[int, int] | None:
        polygons = self._reader.open_truth().polygons
        if polygons is None:
            return None
        for _ in range(TRIES):
            pixel = polygons.draw_pixel(index, Box.from_shape(self.shape), rng)
            if pixel is not None:
                y, x = pixel
                if self._labels(Box(y, x, y + 1, x + 1))[0, 0] == index:
                    return pixel
        return None

    def _point_in_cell(self, index: int | None, rng: np.random.Generator) -> tuple[int, int] | None:
        if index is not None and not self._counts.totals[index]:
            return None
        for _ in range(TRIES):
            box = self._counts.draw_cell(index, rng)
            labels = self._labels(box)
            matches = np.flatnonzero(labels != IGNORED if index is None else labels == index)
            if len(matches):
                y, x = divmod(int(matches[rng.integers(len(matches))]), labels.shape[1])
                return box.y0 + y, box.x0 + x
        return None

    def _labels(self, box: Box) -> NDArray[np.uint8]:
        if self._keep:
            return self._read(box).labels
        return self._reader.labelling.labels(self._reader.open_truth(), box)

    def _read(self, box: Box) -> FieldPixels:
        """Return a box inside the field."""
        if not self._keep:
            return self._reader.read(box)
        if self._pixels is None:  # in another process, which got the field without its pixels
            self._pixels = self._reader.read_all()
        pixels, inside = self._pixels, box.slices()
        return FieldPixels(
            pixels.image[inside],
            pixels.labels[inside],
            None if pixels.separation is None else pixels.separation[inside],
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}


def _gather(
    pixels: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[Any]:
    """Return a copy of these rows and columns of an array; each occurs at least once."""
    if (len(rows), len(columns)) == pixels.shape[:2]:  # each occurs just once
        return pixels.copy()
    return pixels.take(rows, 0).take(columns, 1)

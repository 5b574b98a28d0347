"""A field that was read from files: an image or slide, and what is true of it."""

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
from wsi_unet.slides.resample import Raster
from wsi_unet.training.dataset.counts import CellCounts
from wsi_unet.training.dataset.files import DataFile
from wsi_unet.training.dataset.handles import Handles
from wsi_unet.training.fields import IGNORED, NOTHING, Piece
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.targets.labelling import Labelling
from wsi_unet.training.targets.truths import OpenTruth, TruthFile

PART = 2048
"""px: side of the pieces that a field is made of when it is kept."""
TRIES = 100
"""How often a pixel of a class is looked for where it should be."""
FEW = 100
"""Pixels of a class below which, where not all were looked at, its polygons' areas say more."""


@dataclass(frozen=True, eq=False)
class Planes:
    """All of a field, in memory: what `Piece` has, of the whole.

    Attributes:
        image: (h, w, 3).
        labels: (h, w).
        separation: (h, w); None where the recipe wants none.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    separation: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class FieldOrigin:
    """Where a field comes from, and how it is read.

    Attributes:
        file: the image and its truth.
        image: how the image is read.
        truth: how the truth is.
        labelling: how labels are made of it.
        handles: what is open.
    """

    file: DataFile
    image: TrainingImage
    truth: TruthFile
    labelling: Labelling
    handles: Handles

    def open_image(self) -> Raster:
        """Return the image, open in this process."""
        return self.handles.get(("image", self.file), self.image.cost, self.image.open)

    def open_truth(self) -> OpenTruth:
        """Return the truth, open in this process."""
        return self.handles.get(
            ("truth", self.file), self.truth.cost, lambda: self.truth.open(self.image)
        )

    def read(self, box: Box) -> Planes:
        """Read a box inside the field."""
        labels, separation = self.labelling.read(self.open_truth(), box)
        return Planes(self.open_image().read(box), labels, separation)

    def read_all(self) -> Planes:
        """Read all of the field, and leave nothing of it open."""
        raster, truth = self.image.open(), self.truth.open(self.image)
        weighted = self.labelling.weighting.separation > 0
        labels = np.empty(self.image.shape, np.uint8)
        separation = np.zeros(self.image.shape if weighted else (0, 0), np.float32)
        whole = Box.of_shape(self.image.shape)
        for box in whole.tiles(PART):
            labels[box.slices()], found = self.labelling.read(truth, box)
            if weighted:
                separation[box.slices()] = found
        return Planes(raster.read(whole), labels, separation if weighted else None)


class DataField:
    """A field that was read from files. Safe for threads and processes; see `fields.Field`."""

    def __init__(self, origin: FieldOrigin, counts: CellCounts, planes: Planes | None) -> None:
        """Make a field of what is known of it.

        Args:
            origin: where it comes from.
            counts: where which class is.
            planes: all of it; None: it is read window by window.
        """
        self._origin = origin
        self._counts = counts
        self._planes = planes
        self._keep = planes is not None

    @property
    def name(self) -> str:
        """The image's path, relative to the data folder."""
        return self._origin.file.name

    @property
    def patient(self) -> str:
        """Whose it is."""
        return self._origin.file.patient

    @property
    def source(self) -> int:
        """The number of its source in the recipe."""
        return self._origin.file.source

    @property
    def shape(self) -> Shape:
        """(rows, columns) of the grid, px."""
        return self._origin.image.shape

    @property
    def repaired(self) -> int:
        """Polygons of its truth that cross or touch themselves, and were repaired."""
        return self._origin.truth.repaired

    @property
    def names(self) -> frozenset[str]:
        """The names of classes in its truth; none where they have values instead."""
        return self._origin.truth.names

    @property
    def downsample(self) -> tuple[float, float]:
        """(y, x) px of the image per px of the grid."""
        return self._origin.image.resampling.downsample

    @cached_property
    def amounts(self) -> Mapping[int, float]:
        """Pixels of each class, by index, and of `NOTHING`; of large fields about."""
        totals = self._counts.totals.tolist()
        amounts = dict(enumerate(map(float, totals[:-1])))
        if totals[-1]:
            amounts[NOTHING] = float(totals[-1])
        if self._counts.stride > 1:
            amounts |= self._better_known(amounts)
        return amounts

    def _better_known(self, amounts: Mapping[int, float]) -> dict[int, float]:
        """Return amounts that the truth itself tells better than a look at some of the pixels."""
        pixel = math.prod(self.downsample)
        contents = self._origin.truth.contents
        better = {i: contents[i] / pixel for i, px in amounts.items() if px and i in contents}
        polygons = self._origin.open_truth().polygons
        if polygons is not None:
            for index, amount in amounts.items():
                drawn = float(polygons.areas[polygons.labels == index].sum())
                rare = amount < FEW * self._counts.stride**2 and amount < drawn
                # All that was drawn of a class may lie where nothing is known, or below others.
                if rare and self._point_in_polygon(index, np.random.default_rng(0)):
                    better[index] = drawn
        return better

    @cached_property
    def areas(self) -> Sequence[Box]:
        """What is known of it, in boxes of at most 2048 px per side, px of the grid."""
        return tuple(self._counts.areas())

    def read(self, window: Box) -> Piece:
        """Return a window, which may reach beyond the field: it is mirrored there.

        Raises:
            InputError: the image or the truth can't be read there (any more).
            ValueError: the window is empty.
        """
        if not window.area:
            raise ValueError(f"nothing to read: {window} is empty")
        rows = reflect(window.y0, window.y1, self.shape[0])
        columns = reflect(window.x0, window.x1, self.shape[1])
        box = Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        planes = self._read(box)
        rows, columns = rows - box.y0, columns - box.x0
        if planes.separation is None:
            separation = np.zeros(window.shape, np.float32)
        else:
            separation = _gather(planes.separation, rows, columns)
        return Piece(
            image=_gather(planes.image, rows, columns),
            labels=_gather(planes.labels, rows, columns),
            separation=separation,
        )

    def point(self, index: int | None, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random pixel (y, x) of a class; None: of all that is known.

        Where all pixels were counted each is equally likely. Otherwise a polygon is chosen by its
        area, or else a cell of 128 px per side by about how much of the class it has, and then a
        pixel in it.

        Raises:
            TrainingError: none was found.
        """
        found = None
        if index is not None and self._counts.stride > 1:
            found = self._point_in_polygon(index, rng)
        found = found or self._point_in_cell(index, rng)
        if found is None:
            raise TrainingError(f"{self.name}: no pixel of class {index} is found in it")
        return found

    def _point_in_polygon(self, index: int, rng: np.random.Generator) -> tuple[int, int] | None:
        polygons = self._origin.open_truth().polygons
        if polygons is None:
            return None
        for _ in range(TRIES):
            pixel = polygons.pixel(index, Box.of_shape(self.shape), rng)
            if pixel is not None:
                y, x = pixel
                if self._labels(Box(y, x, y + 1, x + 1))[0, 0] == index:
                    return pixel
        return None

    def _point_in_cell(self, index: int | None, rng: np.random.Generator) -> tuple[int, int] | None:
        if index is not None and not self._counts.totals[index]:
            return None
        for _ in range(TRIES):
            box = self._counts.cell(index, rng)
            labels = self._labels(box)
            there = np.flatnonzero(labels != IGNORED if index is None else labels == index)
            if len(there):
                y, x = divmod(int(there[rng.integers(len(there))]), labels.shape[1])
                return box.y0 + y, box.x0 + x
        return None

    def _labels(self, box: Box) -> NDArray[np.uint8]:
        if self._keep:
            return self._read(box).labels
        return self._origin.labelling.labels(self._origin.open_truth(), box)

    def _read(self, box: Box) -> Planes:
        """Read a box inside the field."""
        if not self._keep:
            return self._origin.read(box)
        if self._planes is None:  # in a process that was started anew
            self._planes = self._origin.read_all()
        planes, part = self._planes, box.slices()
        return Planes(
            planes.image[part],
            planes.labels[part],
            None if planes.separation is None else planes.separation[part],
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_planes": None}


def _gather(
    pixels: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[Any]:
    """Return a copy of these rows and columns of an array, of which all are needed."""
    if (len(rows), len(columns)) == pixels.shape[:2]:  # no row or column is there twice
        return pixels.copy()
    return pixels.take(rows, 0).take(columns, 1)

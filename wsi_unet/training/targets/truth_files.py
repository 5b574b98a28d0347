"""Ground truth of any file format: labels and objects on the grid of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.polygons import Polygon, bounds, rasterise
from wsi_unet.geometry import Box, Shape
from wsi_unet.ground_truth.truth import LabelTruth
from wsi_unet.training.fields import IGNORED
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.targets.meanings import LabelMeanings

TRIES = 100
"""How often a random pixel of a polygon is looked for in its bounding box."""


@dataclass(frozen=True, eq=False)
class TruthWindow:
    """Ground truth in a box.

    Attributes:
        labels: (h, w) class index, `IGNORED` or `NOTHING`.
        numbers: (h, w) number of the object that each pixel belongs to, if its class has objects;
            None if that isn't known, so that the objects are the connected components of a class.
    """

    labels: NDArray[np.uint8]
    numbers: NDArray[np.integer[Any]] | None


@dataclass(frozen=True, eq=False)
class LabelledPolygons:
    """The polygons that a truth is drawn from.

    Attributes:
        polygons: polygons of (y, x), px of the grid.
        labels: (n,) label of each polygon.
        areas: (n,) area of each polygon, px.
    """

    polygons: Sequence[Polygon]
    labels: NDArray[np.uint8]
    areas: NDArray[np.float64]

    def draw_pixel(self, label: int, area: Box, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return a random pixel (y, x): first a polygon is drawn by its area, then a pixel in it.

        Another polygon may lie on top of it there.

        Args:
            label: label of the polygons.
            area: box that the pixel must lie in, px of the grid.
            rng: random generator.

        Returns:
            None if there is no such polygon, or no pixel of it was found in the area.
        """
        cumulated = np.cumsum(np.where(self.labels == label, self.areas, 0))
        if not len(cumulated) or not cumulated[-1]:
            return None
        number = np.searchsorted(cumulated, rng.random() * cumulated[-1], "right")
        polygon = self.polygons[min(int(number), len(cumulated) - 1)]
        y0, x0, y1, x1 = bounds(polygon)
        box = Box(math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1)).intersection(area)
        for _ in range(TRIES if box.area else 0):
            y, x = int(rng.integers(box.y0, box.y1)), int(rng.integers(box.x0, box.x1))
            found = rasterise(polygon, Box(y, x, y + 1, x + 1))
            if found is not None and found[1].all():
                return y, x
        return None


class OpenTruth(Protocol):
    """An open truth, on the grid of an image."""

    @property
    def polygons(self) -> LabelledPolygons | None:
        """The polygons that it is drawn from, if it is drawn."""

    def read(self, box: Box) -> TruthWindow:
        """Return the truth in a box inside the grid.

        Raises:
            InputError: it can't be read there, or has unknown values.
        """


class TruthFile(Protocol):
    """A truth in a file; not open, and picklable."""

    @property
    def cost(self) -> int:
        """Estimated memory while it is open, bytes."""

    @property
    def numbered(self) -> bool:
        """Whether it tells objects apart."""

    @property
    def contents(self) -> Mapping[int, float]:
        """Area of each label, level-0 px, if the file stores it."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the classes in it."""

    def open(self, image: TrainingImage, stride: int = 1) -> OpenTruth:
        """Open the truth on the grid of its image, or on every n-th pixel of it.

        Args:
            image: the image.
            stride: px of the image's grid per px of the truth's.

        Raises:
            InputError: it can't be read any more, or doesn't fit the image.
        """

    def strides(self, shape: Shape) -> Sequence[int]:
        """Return the strides at which to count classes, in turn until all classes are found.

        Args:
            shape: (rows, columns) of the grid, px.
        """

    def object_areas(self, objects: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the areas of all objects, level-0 px.

        Args:
            objects: (256,) whether each label is that of a class with objects.

        Raises:
            InputError: it can't be read, or its objects can't be measured.
        """


@dataclass(frozen=True, eq=False)
class OpenValues:
    """A truth stored as pixels, possibly of another grid, of which the nearest are taken.

    Attributes:
        truth: the stored pixels.
        meanings: labels of their values.
        numbered: whether their values are object numbers.
        polygons: None; it isn't drawn.
    """

    truth: LabelTruth
    meanings: LabelMeanings
    numbered: bool
    polygons: None = None

    def read(self, box: Box) -> TruthWindow:
        """Return the truth in a box inside the grid."""
        values, known = self.truth.read(box)
        labels = self.meanings.translate(values, self.truth.name)
        labels[~known] = IGNORED
        return TruthWindow(labels, values if self.numbered else None)

"""What is true of an image, whatever it is kept as, on the grid that a network is trained at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.polygons import Polygon, bounds, inside
from wsi_unet.geometry import Box, Shape
from wsi_unet.ground_truth.truths import GridTruth
from wsi_unet.training.fields import IGNORED
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.targets.meanings import Meanings

TRIES = 100
"""How often a pixel is looked for in a polygon's bounding box."""


@dataclass(frozen=True, eq=False)
class Marks:
    """What is true of a box.

    Attributes:
        labels: (h, w) class index, `IGNORED` or `NOTHING`.
        numbers: (h, w) of the object that a pixel belongs to, if its class has objects; None where
            that isn't known, so that the connected parts of a class are its objects.
    """

    labels: NDArray[np.uint8]
    numbers: NDArray[np.integer[Any]] | None


@dataclass(frozen=True, eq=False)
class LabelledPolygons:
    """What a truth was drawn from.

    Attributes:
        polygons: (y, x), px of the grid.
        labels: (n,) of the polygons.
        areas: (n,), px.
    """

    polygons: Sequence[Polygon]
    labels: NDArray[np.uint8]
    areas: NDArray[np.float64]

    def pixel(self, label: int, area: Box, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return a random pixel (y, x): first a polygon by its area, then a pixel in it.

        Another polygon may lie on top of it there.

        Args:
            label: of the polygons.
            area: that the pixel is to lie in, px of the grid.
            rng: source of chance.

        Returns:
            None where there is no such polygon, or no pixel of it was found in the area.
        """
        until = np.cumsum(np.where(self.labels == label, self.areas, 0))
        if not len(until) or not until[-1]:
            return None
        place = np.searchsorted(until, rng.random() * until[-1], "right")
        polygon = self.polygons[min(int(place), len(until) - 1)]
        y0, x0, y1, x1 = bounds(polygon)
        box = Box(math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1)).intersection(area)
        for _ in range(TRIES if box.area else 0):
            y, x = int(rng.integers(box.y0, box.y1)), int(rng.integers(box.x0, box.x1))
            found = inside(polygon, Box(y, x, y + 1, x + 1))
            if found is not None and found[1].all():
                return y, x
        return None


class OpenTruth(Protocol):
    """A truth that is open, on the grid of an image."""

    @property
    def polygons(self) -> LabelledPolygons | None:
        """What it was drawn from; None if it wasn't."""

    def read(self, box: Box) -> Marks:
        """Return what is true of a box inside the grid.

        Raises:
            InputError: it can't be read there, or holds what means nothing.
        """


class TruthFile(Protocol):
    """A truth as it is kept; not open, and picklable."""

    @property
    def cost(self) -> int:
        """Bytes that it takes while it is open, about."""

    @property
    def repaired(self) -> int:
        """Polygons that cross or touch themselves."""

    @property
    def numbered(self) -> bool:
        """Whether it tells objects apart."""

    @property
    def contents(self) -> Mapping[int, float]:
        """How much of the image each label covers, level-0 px, if it says so."""

    @property
    def names(self) -> frozenset[str]:
        """The names of classes in it."""

    def open(self, image: TrainingImage, stride: int = 1) -> OpenTruth:
        """Open it on the grid of its image, or on every so manieth pixel of that.

        Raises:
            InputError: it can't be read any more, or doesn't fit the image.
        """

    def strides(self, shape: Shape) -> Sequence[int]:
        """Return at which strides to count classes, one after the other until all are found.

        Args:
            shape: (rows, columns) of the grid, px.
        """

    def object_areas(self, objects: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the areas of the objects, level-0 px.

        Args:
            objects: (256,) which labels are those of objects.

        Raises:
            InputError: it can't be read, or its objects can't be measured.
        """


@dataclass(frozen=True, eq=False)
class OpenValues:
    """Values of another grid, of which the nearest are taken.

    Attributes:
        truth: those values.
        meanings: of them.
        numbered: whether they are numbers of objects.
        polygons: what they were drawn from: nothing.
    """

    truth: GridTruth
    meanings: Meanings
    numbered: bool
    polygons: None = None

    def read(self, box: Box) -> Marks:
        """Return what is true of a box inside the grid."""
        values, known = self.truth.read(box)
        labels = self.meanings.translate(values, self.truth.name)
        labels[~known] = IGNORED
        return Marks(labels, values if self.numbered else None)

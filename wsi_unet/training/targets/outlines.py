"""Truth as annotations: polygons, each of which is an object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.annotation import Annotation
from wsi_unet.annotations.polygons import area
from wsi_unet.annotations.reading import read_annotations
from wsi_unet.geometry import Box, Shape
from wsi_unet.ground_truth.drawing import Drawing, facts_of
from wsi_unet.training.fields import IGNORED
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.targets.meanings import Meanings, annotation_meanings
from wsi_unet.training.targets.truths import LabelledPolygons, Marks, OpenTruth, TruthFile

OVERVIEW = 1 << 24
"""Pixels that polygons are drawn on to see about how much there is of each class."""
COARSEST = 7
"""Binary logarithm of the px of a grid that one pixel of those may stand for."""
POINT_BYTES = 48
"""Bytes that a point of a polygon takes while it is open, about."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """A file of annotations.

    Attributes:
        path: of the file.
        annotations: full-resolution px of the slide.
        meanings: of their numbers, from 1.
        repaired: polygons that cross or touch themselves.
        names: of their classes.
        cost: bytes that they take while they are open, about.
        numbered: whether they tell objects apart.
        contents: what it says of its classes: nothing.
    """

    path: Path
    annotations: Sequence[Annotation]
    meanings: Meanings
    repaired: int
    names: frozenset[str]
    cost: int
    numbered: bool = True
    contents: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, recipe: Recipe, ignored: Sequence[str | int]) -> Outlines:
        """Read annotations.

        Args:
            path: of GeoJSON or ASAP XML.
            recipe: whose classes theirs are.
            ignored: names of what counts for nothing.

        Raises:
            AnnotationError: they can't be read.
            RecipeError: a class is none of the recipe's.
        """
        found = read_annotations(path)
        names = {number: one.name for number, one in enumerate(found, 1)}
        meanings = annotation_meanings(recipe, map(str, ignored), names, str(path))
        return cls(
            path=path,
            annotations=found,
            meanings=meanings,
            repaired=facts_of(found).repaired,
            names=frozenset(names.values()),
            cost=_bytes_of(found),
        )

    def open(self, image: TrainingImage, stride: int = 1) -> OpenTruth:
        """Open it on the grid of its image, or on every so manieth pixel of that."""
        return OpenOutlines(Drawing(self.path, self.annotations, image.grid(stride)), self.meanings)

    def strides(self, shape: Shape) -> Sequence[int]:
        """Return at which stride to count classes: all pixels, or as many as are quickly drawn."""
        finer = math.ceil(math.log2(shape[0] * shape[1] / OVERVIEW) / 2)
        return (1 << min(max(0, finer), COARSEST),)

    def object_areas(self, objects: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the areas of the objects, level-0 px."""
        return np.array(
            [
                area(polygon)
                for number, one in enumerate(self.annotations, 1)
                if objects[self.meanings.labels[number]]
                for polygon in one.polygons
            ]
        )


@dataclass(frozen=True, eq=False)
class OpenOutlines:
    """Annotations on a grid.

    Attributes:
        drawing: them.
        meanings: of their numbers.
    """

    drawing: Drawing
    meanings: Meanings

    def read(self, box: Box) -> Marks:
        """Return what is true of a box inside the grid."""
        numbers = self.drawing.read_polygons(box)
        return Marks(self._labels[numbers], numbers)

    @cached_property
    def polygons(self) -> LabelledPolygons:
        """What it was drawn from."""
        return LabelledPolygons(self.drawing.polygons, self._labels[1:], self.drawing.areas)

    @cached_property
    def _labels(self) -> NDArray[np.uint8]:
        """The label of each polygon's number; the first is that of what lies in none."""
        return self.meanings.translate(self.drawing.owners, str(self.drawing.path))


@dataclass(frozen=True, eq=False)
class Within:
    """A truth of which nothing is known outside of some outlines.

    Attributes:
        truth: it.
        path: of the outlines.
        regions: the outlines, full-resolution px of the slide.
        repaired: polygons of both that cross or touch themselves.
        cost: bytes that both take while they are open, about.
        contents: what it says of the classes inside: nothing.
    """

    truth: TruthFile
    path: Path
    regions: Sequence[Annotation]
    repaired: int
    cost: int
    contents: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, truth: TruthFile, path: Path) -> Within:
        """Read the outlines.

        Args:
            truth: what is true.
            path: of GeoJSON or ASAP XML.

        Raises:
            AnnotationError: they can't be read.
        """
        regions = read_annotations(path)
        return cls(
            truth=truth,
            path=path,
            regions=regions,
            repaired=truth.repaired + facts_of(regions).repaired,
            cost=truth.cost + _bytes_of(regions),
        )

    @property
    def numbered(self) -> bool:
        """Whether the truth tells objects apart."""
        return self.truth.numbered

    @property
    def names(self) -> frozenset[str]:
        """The names of classes in the truth."""
        return self.truth.names

    def open(self, image: TrainingImage, stride: int = 1) -> OpenTruth:
        """Open it on the grid of its image, or on every so manieth pixel of that."""
        regions = Drawing(self.path, self.regions, image.grid(stride))
        return OpenWithin(self.truth.open(image, stride), regions)

    def strides(self, shape: Shape) -> Sequence[int]:
        """Return at which strides to count classes."""
        return self.truth.strides(shape)

    def object_areas(self, objects: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the areas of the objects, level-0 px; of those outside too."""
        return self.truth.object_areas(objects)


@dataclass(frozen=True, eq=False)
class OpenWithin:
    """A truth of which nothing is known outside of some outlines.

    Attributes:
        truth: it.
        within: the outlines, on the same grid.
    """

    truth: OpenTruth
    within: Drawing

    @property
    def polygons(self) -> LabelledPolygons | None:
        """What the truth was drawn from; inside of the outlines or not."""
        return self.truth.polygons

    def read(self, box: Box) -> Marks:
        """Return what is true of a box inside the grid."""
        known = self.within.read_polygons(box) > 0
        marks = self.truth.read(box)
        marks.labels[~known] = IGNORED
        return marks


def _bytes_of(annotations: Sequence[Annotation]) -> int:
    rings = (ring for one in annotations for polygon in one.polygons for ring in polygon)
    return POINT_BYTES * sum(map(len, rings))

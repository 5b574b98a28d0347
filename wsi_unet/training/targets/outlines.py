"""Ground truth as annotations: polygons, each of which is an object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.annotation import Annotations
from wsi_unet.annotations.polygons import area
from wsi_unet.annotations.reading import read_annotations
from wsi_unet.geometry import Box, Shape
from wsi_unet.ground_truth.annotation_rasters import AnnotationRaster
from wsi_unet.logs import warn
from wsi_unet.training.fields import IGNORED
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.targets.meanings import LabelMeanings, annotation_meanings
from wsi_unet.training.targets.truth_files import (
    LabelledPolygons,
    OpenTruth,
    TruthFile,
    TruthWindow,
)

OVERVIEW = 1 << 24
"""Pixels on which polygons are drawn to estimate the amount of each class."""
COARSEST = 7
"""Binary logarithm of the largest stride at which they are drawn."""
POINT_BYTES = 112
"""Estimated memory per point of an open polygon, bytes."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """An annotation file; see `TruthFile`.

    Attributes:
        path: path of the file.
        found: annotations, level-0 px of the slide.
        meanings: labels of the annotations' numbers, from 1.
        names: names of their classes.
        cost: estimated memory while they are open, bytes.
        numbered: true; each polygon is an object.
        contents: empty; the file doesn't store how much of each class it has.
    """

    path: Path
    found: Annotations
    meanings: LabelMeanings
    names: frozenset[str]
    cost: int
    numbered: bool = True
    contents: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, recipe: Recipe, ignored: Sequence[str | int]) -> Outlines:
        """Read annotations.

        Args:
            path: path of a GeoJSON or ASAP XML file.
            recipe: recipe with the classes.
            ignored: names of annotations to ignore.

        Raises:
            AnnotationError: the file can't be read.
            RecipeError: a class isn't in the recipe.
        """
        found = _read(path)
        names = {number: item.name for number, item in enumerate(found.annotations, 1)}
        meanings = annotation_meanings(recipe, map(str, ignored), names, str(path))
        return cls(
            path=path,
            found=found,
            meanings=meanings,
            names=frozenset(names.values()),
            cost=_estimate_memory(found),
        )

    def open(self, image: TrainingImage, stride: int = 1) -> OpenTruth:
        """Open the annotations on the grid of their image, or on every n-th pixel of it."""
        raster = AnnotationRaster(self.path, self.found, image.grid(stride))
        return OpenOutlines(raster, self.meanings)

    def strides(self, shape: Shape) -> Sequence[int]:
        """Return the strides for counting: 1, or for large grids one that is drawn quickly."""
        finer = math.ceil(math.log2(shape[0] * shape[1] / OVERVIEW) / 2)
        return (1 << min(max(0, finer), COARSEST),)

    def object_areas(self, objects: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the areas of the objects, level-0 px."""
        return np.array(
            [
                area(polygon)
                for number, annotation in enumerate(self.found.annotations, 1)
                if objects[self.meanings.labels[number]]
                for polygon in annotation.polygons
            ]
        )


@dataclass(frozen=True, eq=False)
class OpenOutlines:
    """Annotations drawn on a grid; see `OpenTruth`.

    Attributes:
        raster: the annotations.
        meanings: labels of their numbers.
    """

    raster: AnnotationRaster
    meanings: LabelMeanings

    def read(self, box: Box) -> TruthWindow:
        """Return the truth in a box inside the grid."""
        numbers = self.raster.read_polygons(box)
        return TruthWindow(self._labels[numbers], numbers)

    @cached_property
    def polygons(self) -> LabelledPolygons:
        """The polygons that are drawn."""
        return LabelledPolygons(self.raster.polygons, self._labels[1:], self.raster.areas)

    @cached_property
    def _labels(self) -> NDArray[np.uint8]:
        """Label of each polygon, by number; the first is the label of pixels in no polygon."""
        return self.meanings.translate(self.raster.owners, str(self.raster.path))


@dataclass(frozen=True, eq=False)
class RegionTruth:
    """A truth that is known only inside some regions; see `TruthFile`.

    Attributes:
        truth: the truth.
        path: path of the regions' file.
        regions: the regions, level-0 px of the slide.
        cost: estimated memory of both while they are open, bytes.
        contents: empty; how much of each class lies inside isn't stored.
    """

    truth: TruthFile
    path: Path
    regions: Annotations
    cost: int
    contents: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def read(cls, truth: TruthFile, path: Path) -> RegionTruth:
        """Read the regions.

        Args:
            truth: the truth.
            path: path of a GeoJSON or ASAP XML file.

        Raises:
            AnnotationError: the file can't be read.
        """
        regions = _read(path)
        return cls(
            truth=truth,
            path=path,
            regions=regions,
            cost=truth.cost + _estimate_memory(regions),
        )

    @property
    def numbered(self) -> bool:
        """Whether the truth tells objects apart."""
        return self.truth.numbered

    @property
    def names(self) -> frozenset[str]:
        """Names of the classes in the truth, inside the regions or not."""
        return self.truth.names

    def open(self, image: TrainingImage, stride: int = 1) -> OpenTruth:
        """Open truth and regions on the grid of their image, or on every n-th pixel of it."""
        regions = AnnotationRaster(self.path, self.regions, image.grid(stride))
        return OpenRegionTruth(self.truth.open(image, stride), regions)

    def strides(self, shape: Shape) -> Sequence[int]:
        """Return the truth's strides for counting."""
        return self.truth.strides(shape)

    def object_areas(self, objects: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the areas of all objects, inside the regions or not, level-0 px."""
        return self.truth.object_areas(objects)


@dataclass(frozen=True, eq=False)
class OpenRegionTruth:
    """A truth that is known only inside some regions; see `OpenTruth`.

    Attributes:
        truth: the truth.
        regions: the regions, on the same grid.
    """

    truth: OpenTruth
    regions: AnnotationRaster

    @property
    def polygons(self) -> LabelledPolygons | None:
        """The truth's polygons, inside the regions or not."""
        return self.truth.polygons

    def read(self, box: Box) -> TruthWindow:
        """Return the truth in a box inside the grid, ignored outside the regions."""
        known = self.regions.read_polygons(box) > 0
        window = self.truth.read(box)
        window.labels[~known] = IGNORED
        return window


def _read(path: Path) -> Annotations:
    """Read annotations, and say what was left out."""
    found = read_annotations(path)
    if found.left_out:
        warn(f"{path}: {found.left_out}")
    return found


def _estimate_memory(found: Annotations) -> int:
    rings = (ring for item in found.annotations for polygon in item.polygons for ring in polygon)
    return POINT_BYTES * sum(map(len, rings))

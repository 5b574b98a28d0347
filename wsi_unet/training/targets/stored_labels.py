"""Ground truth as a label OME-Zarr, such as a result of `segment` that somebody has corrected."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import RecipeError
from wsi_unet.geometry import Shape
from wsi_unet.ground_truth.grids import match_grids
from wsi_unet.ground_truth.label_rasters import open_label_raster
from wsi_unet.ground_truth.truth import LabelTruth
from wsi_unet.labels.reading import open_labels
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.targets.meanings import LabelMeanings, annotation_meanings
from wsi_unet.training.targets.truth_files import OpenTruth, OpenValues

STRIDES = (8, 4, 2, 1)
"""Strides for counting classes; a finer one is used if classes vanish at a coarse one."""


@dataclass(frozen=True)
class StoredLabels:
    """A label group of an output of `segment`; see `TruthFile`.

    Attributes:
        path: path of the output.
        label: name of the label group.
        levels: number of levels of its pyramid.
        meanings: labels of its values.
        contents: area of each label but the background, level-0 px.
        names: names of its classes.
        cost: estimated memory while it is open, bytes.
        numbered: false; it stores classes, not objects.
    """

    path: Path
    label: str
    levels: int
    meanings: LabelMeanings
    contents: Mapping[int, float]
    names: frozenset[str]
    cost: int = 32 << 20
    numbered: bool = False

    @classmethod
    def inspect(
        cls, path: Path, label: str | None, recipe: Recipe, ignored: Sequence[str | int]
    ) -> StoredLabels:
        """Read the classes and the areas of a label OME-Zarr from its metadata.

        Args:
            path: path of the output.
            label: name of the label group; None: the only one.
            recipe: recipe with the classes.
            ignored: names and values to ignore.

        Raises:
            OutputError: it isn't an output of `segment`, or has no such group.
            EvaluationError: it isn't finished.
            RecipeError: a class isn't in the recipe.
        """
        array = open_labels(path, label)
        source = open_label_raster(path, str(array.name))
        names = dict(source.classes or {})
        ignored_names = [names.get(i, "") if isinstance(i, int) else i for i in ignored]
        meanings = annotation_meanings(recipe, ignored_names, names, str(path))
        pixel = math.prod(source.grid.slide_centres.step)
        contents: Counter[int] = Counter()
        for value, pixels in array.attrs["pixels"].items():
            if meanings.labels[value] != meanings.labels[0]:  # counted inside the tissue only
                contents[meanings.labels[value]] += pixels * pixel
        return cls(
            path=path,
            label=str(array.name),
            levels=array.attrs["levels"],
            meanings=meanings,
            contents=dict(contents),
            names=frozenset(names.values()),
        )

    def open(self, image: TrainingImage, stride: int = 1) -> OpenTruth:
        """Open the labels on the grid of their image, or on every n-th pixel of it."""
        source = open_label_raster(self.path, self.label, self._level(image, stride))
        grid = source.grid
        if grid.slide != image.fingerprint and grid.slide_shape != image.slide_shape:
            raise RecipeError(
                f"{self.path}: these are labels of another slide than {image.path}: both content "
                "and size differ"
            )
        source = replace(source, grid=replace(grid, slide=image.fingerprint))
        nearest = match_grids(image.grid(stride), source.grid, str(image.path), source.name)
        return OpenValues(LabelTruth(source, nearest), self.meanings, self.numbered)

    def _level(self, image: TrainingImage, stride: int) -> int:
        """Return the coarsest level that isn't coarser than every `stride`-th pixel of the grid."""
        if stride == 1:
            return 0
        step = max(open_label_raster(self.path, self.label).grid.slide_centres.step)
        wanted = min(image.resampling.downsample) * stride
        fine = [level for level in range(self.levels) if step * 2**level <= wanted * 1.01]
        return max(fine, default=0)

    def strides(self, shape: Shape) -> Sequence[int]:
        """Return the strides for counting: coarse ones first, which read little."""
        return STRIDES

    def object_areas(self, objects: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Refuse: such labels are of slides, which mostly have a pixel size."""
        raise RecipeError(
            f"{self.path}: the objects of an OME-Zarr aren't measured; give mpp instead of "
            "object_diameter"
        )

"""Truth as a label OME-Zarr, such as a result of `segment` that somebody has corrected."""

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
from wsi_unet.ground_truth.sources import open_label_source
from wsi_unet.ground_truth.truths import GridTruth
from wsi_unet.labels.reading import open_labels
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.targets.meanings import Meanings, annotation_meanings
from wsi_unet.training.targets.truths import OpenTruth, OpenValues

STRIDES = (8, 4, 2, 1)
"""px of the grid that one pixel of a coarse level stands for; finer where classes get lost."""


@dataclass(frozen=True)
class StoredLabels:
    """A label group of ours.

    Attributes:
        path: of the output.
        label: of the group.
        levels: of its pyramid.
        meanings: of its values.
        contents: how much of the image each label but the background covers, level-0 px.
        names: of its classes.
        cost: bytes that it takes while it is open, about.
        numbered: whether it tells objects apart: it has classes.
        repaired: polygons; there are none.
    """

    path: Path
    label: str
    levels: int
    meanings: Meanings
    contents: Mapping[int, float]
    names: frozenset[str]
    cost: int = 32 << 20
    numbered: bool = False
    repaired: int = 0

    @classmethod
    def of(
        cls, path: Path, label: str | None, recipe: Recipe, ignored: Sequence[str | int]
    ) -> StoredLabels:
        """Look at a label OME-Zarr.

        Args:
            path: of the output.
            label: of the label group; None: there is just one.
            recipe: whose classes its classes are.
            ignored: names and values of what counts for nothing.

        Raises:
            OutputError: it isn't one of ours, or has no such group.
            EvaluationError: it isn't finished.
            RecipeError: a class is none of the recipe's.
        """
        array = open_labels(path, label)
        source = open_label_source(path, str(array.name))
        names = dict(source.classes or {})
        left_out = [names.get(one, "") if isinstance(one, int) else one for one in ignored]
        meanings = annotation_meanings(recipe, left_out, names, str(path))
        pixel = math.prod(source.grid.on_slide.step)
        contents: Counter[int] = Counter()
        for value, pixels in array.attrs["pixels"].items():
            if meanings.labels[value] != meanings.labels[0]:  # counted inside of tissue only
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
        """Open it on the grid of its image, or on every so manieth pixel of that."""
        source = open_label_source(self.path, self.label, self._level(image, stride))
        grid = source.grid
        if grid.slide != image.fingerprint and grid.slide_shape != image.slide_shape:
            raise RecipeError(
                f"{self.path}: are labels of another slide than {image.path}: neither content nor "
                "size is the same"
            )
        source = replace(source, grid=replace(grid, slide=image.fingerprint))
        places = match_grids(image.grid(stride), source.grid, str(image.path), source.name)
        return OpenValues(GridTruth(source, places), self.meanings, self.numbered)

    def _level(self, image: TrainingImage, stride: int) -> int:
        """Return the coarsest level that isn't coarser than what is asked for."""
        if stride == 1:
            return 0
        step = max(open_label_source(self.path, self.label).grid.on_slide.step)
        wanted = min(image.resampling.downsample) * stride
        fine = [level for level in range(self.levels) if step * 2**level <= wanted * 1.01]
        return max(fine, default=0)

    def strides(self, shape: Shape) -> Sequence[int]:
        """Return at which strides to count classes: coarse ones, unless classes get lost."""
        return STRIDES

    def object_areas(self, objects: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Refuse: such labels are of slides, which mostly say how large their pixels are."""
        raise RecipeError(
            f"{self.path}: objects of an OME-Zarr aren't measured; give mpp, not object_diameter"
        )

"""Ground truth as label images: PNG and TIFF files of class values or of object numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import RecipeError
from wsi_unet.geometry import Box, Shape
from wsi_unet.ground_truth.grids import SLIDE_PIXELS, Grid, match_grids
from wsi_unet.ground_truth.label_rasters import open_label_raster
from wsi_unet.ground_truth.truth import LabelTruth
from wsi_unet.metrics.components import label_chunk
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.targets.meanings import LabelMeanings
from wsi_unet.training.targets.truth_files import OpenTruth, OpenValues

MOST_CHECKED = 1 << 26
"""Largest label image whose values are all checked, and whose objects can be measured, px."""
MOST_BYTES = 8
"""Most bytes per pixel."""


@dataclass(frozen=True)
class LabelImage:
    """A label image, as large as its image's level 0; see `TruthFile`.

    Attributes:
        path: path of the label image.
        shape: (rows, columns), px.
        meanings: labels of its values.
        numbered: whether its values are object numbers.
        contents: empty; it doesn't store how much of each class it has.
        names: empty; its classes have values, not names.
    """

    path: Path
    shape: Shape
    meanings: LabelMeanings
    numbered: bool
    contents: Mapping[int, float] = field(default_factory=dict)
    names: frozenset[str] = frozenset()

    @classmethod
    def inspect(
        cls, path: Path, meanings: LabelMeanings, shape: Shape, *, numbered: bool
    ) -> LabelImage:
        """Check a label image's size and, unless it is huge, its values.

        Args:
            path: path of a PNG or TIFF.
            meanings: labels of its values.
            shape: (rows, columns) of its image's level 0, px.
            numbered: whether its values are object numbers.

        Raises:
            EvaluationError: it can't be read, or has no labels.
            RecipeError: its size differs from its image's, or it has unknown values.
        """
        source = open_label_raster(path)
        own = source.grid.shape
        if own != shape:
            raise RecipeError(
                f"{path}: the labels have {own[1]} x {own[0]} px and their image "
                f"{shape[1]} x {shape[0]}; both must have the same size"
            )
        if shape[0] * shape[1] <= MOST_CHECKED:
            meanings.translate(source.pixels.read(Box.from_shape(shape)), str(path))
        return cls(path, shape, meanings, numbered)

    @property
    def cost(self) -> int:
        """Largest memory while it is open, bytes."""
        return self.shape[0] * self.shape[1] * MOST_BYTES

    def open(self, image: TrainingImage, stride: int = 1) -> OpenTruth:
        """Open the labels on the grid of their image, or on every n-th pixel of it."""
        source = open_label_raster(self.path)
        source = replace(source, grid=Grid(self.shape, SLIDE_PIXELS, slide=image.fingerprint))
        nearest = match_grids(image.grid(stride), source.grid, str(image.path), source.name)
        return OpenValues(LabelTruth(source, nearest), self.meanings, self.numbered)

    def strides(self, shape: Shape) -> Sequence[int]:
        """Return the strides for counting: 1, since counting also checks every value."""
        return (1,)

    def object_areas(self, objects: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the areas of the objects, level-0 px."""
        if self.shape[0] * self.shape[1] > MOST_CHECKED:
            raise RecipeError(
                f"{self.path}: is too large for its objects to be measured; give mpp instead of "
                "object_diameter"
            )
        values = open_label_raster(self.path).pixels.read(Box.from_shape(self.shape))
        labels = self.meanings.translate(values, str(self.path))
        if not self.numbered:
            values, _ = label_chunk(np.where(objects[labels], labels + 1, 0), 0)
        _, areas = np.unique(values[objects[labels]], return_counts=True)
        return np.asarray(areas, np.float64)

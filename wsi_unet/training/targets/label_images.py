"""Truth as images: PNG and TIFF of classes, or of numbers of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import RecipeError
from wsi_unet.geometry import Box, Shape
from wsi_unet.ground_truth.grids import SLIDE_PIXELS, Grid, match_grids
from wsi_unet.ground_truth.sources import open_label_source
from wsi_unet.ground_truth.truths import GridTruth
from wsi_unet.metrics.components import label_chunk
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.targets.meanings import Meanings
from wsi_unet.training.targets.truths import OpenTruth, OpenValues

MOST_CHECKED = 1 << 26
"""Pixels of a label image whose objects are measured, and whose values are looked at at once."""
MOST_BYTES = 8
"""Bytes that a pixel has at most."""


@dataclass(frozen=True)
class LabelImage:
    """A label image, as large as its image's level 0.

    Attributes:
        path: of the image.
        shape: (rows, columns), px.
        meanings: of its values.
        numbered: whether its values are numbers of objects.
        repaired: polygons; there are none.
        contents: what it says of its classes: nothing.
        names: of its classes: they have values.
    """

    path: Path
    shape: Shape
    meanings: Meanings
    numbered: bool
    repaired: int = 0
    contents: Mapping[int, float] = field(default_factory=dict)
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, path: Path, meanings: Meanings, shape: Shape, *, numbered: bool) -> LabelImage:
        """Look at a label image.

        Args:
            path: of a PNG or TIFF.
            meanings: of its values.
            shape: (rows, columns) of its image's level 0, px.
            numbered: whether its values are numbers of objects.

        Raises:
            EvaluationError: it can't be read, or has no labels.
            RecipeError: it differs from its image in size, or has values that mean nothing.
        """
        source = open_label_source(path)
        found = source.grid.shape
        if found != shape:
            raise RecipeError(
                f"{path}: the labels have {found[1]} x {found[0]} px and their image "
                f"{shape[1]} x {shape[0]}; they must have one size"
            )
        if shape[0] * shape[1] <= MOST_CHECKED:
            meanings.translate(source.pixels.read(Box.of_shape(shape)), str(path))
        return cls(path, shape, meanings, numbered)

    @property
    def cost(self) -> int:
        """Bytes that it takes while it is open, at most."""
        return self.shape[0] * self.shape[1] * MOST_BYTES

    def open(self, image: TrainingImage, stride: int = 1) -> OpenTruth:
        """Open it on the grid of its image, or on every so manieth pixel of that."""
        source = open_label_source(self.path)
        source = replace(source, grid=Grid(self.shape, SLIDE_PIXELS, slide=image.fingerprint))
        places = match_grids(image.grid(stride), source.grid, str(image.path), source.name)
        return OpenValues(GridTruth(source, places), self.meanings, self.numbered)

    def strides(self, shape: Shape) -> Sequence[int]:
        """Return at which strides to count classes: all pixels, whose values are checked so."""
        return (1,)

    def object_areas(self, objects: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the areas of the objects, level-0 px."""
        if self.shape[0] * self.shape[1] > MOST_CHECKED:
            raise RecipeError(
                f"{self.path}: is too large to measure its objects; give mpp, not object_diameter"
            )
        values = open_label_source(self.path).pixels.read(Box.of_shape(self.shape))
        labels = self.meanings.translate(values, str(self.path))
        if not self.numbered:
            values, _ = label_chunk(np.where(objects[labels], labels + 1, 0), 0)
        _, areas = np.unique(values[objects[labels]], return_counts=True)
        return np.asarray(areas, np.float64)

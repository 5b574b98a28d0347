"""Opening all the data that a recipe names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from wsi_unet.errors import RecipeError
from wsi_unet.geometry import Shape
from wsi_unet.ground_truth.truths import is_drawn
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.slide import Slide
from wsi_unet.training.dataset.counts import CellCounts
from wsi_unet.training.dataset.field import DataField, FieldOrigin, Planes
from wsi_unet.training.dataset.files import DataFile, find_files
from wsi_unet.training.dataset.handles import Handles
from wsi_unet.training.images import TrainingImage, downsample_to
from wsi_unet.training.recipe import DataSource, Recipe
from wsi_unet.training.targets.label_images import LabelImage
from wsi_unet.training.targets.labelling import Labelling, ObjectLabels
from wsi_unet.training.targets.meanings import class_meanings, instance_meanings, refuse_useless
from wsi_unet.training.targets.outlines import Outlines, Within
from wsi_unet.training.targets.stored_labels import StoredLabels
from wsi_unet.training.targets.truths import TruthFile

LARGEST_KEPT = 1 << 26
"""Pixels of a field that is kept in memory, if there is room, and of which all are counted."""
MOST_KEPT = 2 << 30
"""Bytes of all fields that are kept in memory, by all processes together."""
SHARE_KEPT = 0.25
"""Of the free memory, at most."""


@dataclass
class MemoryBudget:
    """Memory for fields to be kept in.

    Attributes:
        left: bytes.
    """

    left: int

    @classmethod
    def free(cls, processes: int = 1) -> MemoryBudget:
        """Return as much as each process of a training may well take."""
        available = SHARE_KEPT * psutil.virtual_memory().available
        return cls(int(min(MOST_KEPT, available) / processes))

    def take(self, shape: Shape, pixel: int) -> bool:
        """Whether a field fits in; its room is taken then.

        Args:
            shape: (rows, columns) of the field, px.
            pixel: bytes of a pixel.
        """
        pixels = shape[0] * shape[1]
        fits = pixels <= LARGEST_KEPT and pixels * pixel <= self.left
        if fits:
            self.left -= pixels * pixel
        return fits


def open_fields(
    recipe: Recipe, folder: Path, room: MemoryBudget | None = None, *, processes: int = 1
) -> list[DataField]:
    """Open all images that a recipe names, with what is true of them.

    Small fields are read as a whole and kept as long as there is room, the others are read window
    by window: what they give is the same.

    Args:
        recipe: of the training.
        folder: what its paths are relative to.
        room: memory for fields to be kept in; None: as much as a training may well take.
        processes: how many keep them, each for itself.

    Returns:
        The fields in the order of their sources, and in each in the natural order of their names.

    Raises:
        RecipeError: a source names nothing, or what it names doesn't fit together or the recipe.
        SlideError: an image can't be read.
        AnnotationError: annotations can't be read, or lie outside of their slide.
        EvaluationError, OutputError: labels can't be read.
    """
    opener = _Opener(recipe, Handles(), room or MemoryBudget.free(processes))
    fields = []
    for number, source in enumerate(recipe.data):
        files = find_files(source, number, folder)
        opened = [opener.open(file, source) for file in files]
        names = [name for field in opened for name in sorted(field.names)]
        if names:
            refuse_useless(source.ignore, names, f"data.{number}")
        fields += opened
    return fields


@dataclass(frozen=True)
class _Opener:
    """Opens the fields of a recipe.

    Attributes:
        recipe: of the training.
        handles: what the fields hold open.
        room: for fields to be kept in.
    """

    recipe: Recipe
    handles: Handles
    room: MemoryBudget

    def open(self, file: DataFile, source: DataSource) -> DataField:
        """Open an image and its truth."""
        key = f"data.{file.source}"
        with open_slide(file.image) as slide:
            truth = self._truth(file, source, slide.shape, key)
            image = TrainingImage.of(file.image, slide, self._downsample(slide, source, truth, key))
        weighting = self.recipe.weighting
        labelling = Labelling.of(image, self._objects, weighting, truth)
        origin = FieldOrigin(file, image, truth, labelling, self.handles)
        pixel = 8 if weighting.separation else 4
        planes = origin.read_all() if self.room.take(image.shape, pixel) else None
        return DataField(origin, self._count(origin, planes), planes)

    @property
    def _objects(self) -> ObjectLabels:
        return ObjectLabels.of(self.recipe)

    def _truth(self, file: DataFile, source: DataSource, shape: Shape, key: str) -> TruthFile:
        """Look at a truth, whatever it is kept as."""
        truth: TruthFile
        if file.labels.is_dir():
            truth = StoredLabels.of(file.labels, source.label, self.recipe, source.ignore)
        elif is_drawn(file.labels):
            truth = Outlines.of(file.labels, self.recipe, source.ignore)
        else:
            numbered = source.kind == "instances"
            meanings = (instance_meanings if numbered else class_meanings)(self.recipe, source, key)
            truth = LabelImage.of(file.labels, meanings, shape, numbered=numbered)
        if file.within is None:
            return truth
        return Within.of(truth, file.within)

    def _downsample(
        self, slide: Slide, source: DataSource, truth: TruthFile, key: str
    ) -> tuple[float, float]:
        """Return (y, x) level-0 px per px to train at."""
        wanted, diameter = self.recipe.mpp, source.object_diameter
        if diameter is None:
            return downsample_to(slide, wanted, source.mpp, key)
        if wanted is None or source.mpp is not None:
            raise RecipeError(
                f"{key}.object_diameter: is for images whose pixel size isn't known; give the "
                "recipe an mpp, and the source none"
            )
        areas = truth.object_areas(self._objects.labels)
        if not len(areas):
            raise RecipeError(
                f"{slide.path}: there is no object in it, so its magnification can't be told from "
                f"{key}.object_diameter; leave it out, or give mpp"
            )
        found = 2 * math.sqrt(float(np.median(areas)) / math.pi)
        reduction = max(1.0, found * wanted / diameter)
        return reduction, reduction

    def _count(self, origin: FieldOrigin, planes: Planes | None) -> CellCounts:
        """Count the classes of a field: the same, and so sampled alike, whether it is kept or not.

        Of what is too large to be kept it is about how much there is.
        """
        classes = len(self.recipe.classes)
        if planes is not None:
            return CellCounts.count(
                lambda box: planes.labels[box.slices()], origin.image.shape, classes
            )
        if math.prod(origin.image.shape) <= LARGEST_KEPT:
            truth = origin.truth.open(origin.image)
            return CellCounts.count(
                lambda box: origin.labelling.labels(truth, box), origin.image.shape, classes
            )
        *quick, thorough = origin.truth.strides(origin.image.shape)
        for stride in quick:
            counts = self._count_at(origin, stride)
            there = [index for index, px in origin.truth.contents.items() if px and index < classes]
            if counts.totals[there].all():
                return counts
        return self._count_at(origin, thorough)

    def _count_at(self, origin: FieldOrigin, stride: int) -> CellCounts:
        truth = origin.truth.open(origin.image, stride)
        return CellCounts.count(
            lambda box: truth.read(box).labels,
            origin.image.shape,
            len(self.recipe.classes),
            stride,
        )

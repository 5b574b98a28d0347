"""Opening the images and ground truth that a recipe names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from wsi_unet.errors import RecipeError
from wsi_unet.geometry import Shape
from wsi_unet.ground_truth.annotation_rasters import is_annotation_file
from wsi_unet.process_cache import ProcessCache
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.slide import Slide
from wsi_unet.training.dataset.counts import CellCounts
from wsi_unet.training.dataset.field import DataField, FieldPixels, FieldReader
from wsi_unet.training.dataset.files import DataFile, find_files
from wsi_unet.training.images import TrainingImage, downsample_to
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_sections import DataSource
from wsi_unet.training.targets.label_images import LabelImage
from wsi_unet.training.targets.labelling import Labelling, ObjectLabels
from wsi_unet.training.targets.meanings import class_meanings, instance_meanings, refuse_useless
from wsi_unet.training.targets.outlines import Outlines, RegionTruth
from wsi_unet.training.targets.stored_labels import StoredLabels
from wsi_unet.training.targets.truth_files import TruthFile

LARGEST_KEPT = 1 << 26
"""Largest field that is kept in memory, and of which every pixel is counted, px."""
MOST_KEPT = 2 << 30
"""Memory for kept fields, in all processes together, bytes."""
SHARE_KEPT = 0.25
"""Largest share of the free memory that is used for kept fields."""
MOST_OPEN = 1 << 30
"""Estimated memory of open files and decoded images in each process, bytes."""


@dataclass
class MemoryBudget:
    """Memory in which fields may be kept.

    Attributes:
        left: bytes that are left.
    """

    left: int

    @classmethod
    def from_free_memory(cls, processes: int = 1) -> MemoryBudget:
        """Return the budget of each of a training's processes."""
        available = SHARE_KEPT * psutil.virtual_memory().available
        return cls(int(min(MOST_KEPT, available) / processes))

    def reserve(self, shape: Shape, pixel: int) -> bool:
        """Reserve memory for a field if it fits; return whether it does.

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
    recipe: Recipe, folder: Path, budget: MemoryBudget | None = None, *, processes: int = 1
) -> list[DataField]:
    """Open all images that a recipe names, with their ground truth.

    Small fields are read as a whole and kept, as far as the budget goes; the others are read window
    by window. What they return is the same.

    Args:
        recipe: recipe of the training.
        folder: folder that its paths are relative to.
        budget: memory for kept fields; None: a share of what is free.
        processes: number of processes that keep the fields, each for itself.

    Returns:
        The fields in the order of their sources, and of each source in the natural order of their
        names.

    Raises:
        RecipeError: a source names nothing, or files don't fit each other or the recipe.
        SlideError: an image can't be read.
        AnnotationError: annotations can't be read, or lie outside their slide.
        EvaluationError, OutputError: labels can't be read.
    """
    budget = budget or MemoryBudget.from_free_memory(processes)
    opener = _FieldOpener(recipe, ProcessCache(MOST_OPEN), budget)
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
class _FieldOpener:
    """Opens the fields of a recipe.

    Attributes:
        recipe: recipe of the training.
        opened: images and truths that are open, of all fields.
        budget: memory for kept fields.
    """

    recipe: Recipe
    opened: ProcessCache[Any]
    budget: MemoryBudget

    def open(self, file: DataFile, source: DataSource) -> DataField:
        """Open an image and its truth."""
        key = f"data.{file.source}"
        with open_slide(file.image) as slide:
            truth = self._inspect_truth(file, source, slide.shape, key)
            downsample = self._choose_downsample(slide, source, truth, key)
            image = TrainingImage.from_slide(file.image, slide, downsample)
        weighting = self.recipe.weighting
        labelling = Labelling.prepare(image, self._objects, weighting, truth)
        reader = FieldReader(file, image, truth, labelling, self.opened)
        pixel = 8 if weighting.separation else 4
        pixels = reader.read_all() if self.budget.reserve(image.shape, pixel) else None
        return DataField(reader, self._count(reader, pixels), pixels)

    @property
    def _objects(self) -> ObjectLabels:
        return ObjectLabels.from_recipe(self.recipe)

    def _inspect_truth(
        self, file: DataFile, source: DataSource, shape: Shape, key: str
    ) -> TruthFile:
        """Return a truth, of whatever file format, checked against the recipe and its image."""
        truth: TruthFile
        if file.labels.is_dir():
            truth = StoredLabels.inspect(file.labels, source.label, self.recipe, source.ignore)
        elif is_annotation_file(file.labels):
            truth = Outlines.read(file.labels, self.recipe, source.ignore)
        elif source.kind == "instances":
            meanings = instance_meanings(self.recipe, source, key)
            truth = LabelImage.inspect(file.labels, meanings, shape, numbered=True)
        else:
            meanings = class_meanings(self.recipe, source, key)
            truth = LabelImage.inspect(file.labels, meanings, shape, numbered=False)
        if file.within is None:
            return truth
        return RegionTruth.read(truth, file.within)

    def _choose_downsample(
        self, slide: Slide, source: DataSource, truth: TruthFile, key: str
    ) -> tuple[float, float]:
        """Return (y, x) level-0 px per px of the training's grid."""
        wanted, diameter = self.recipe.mpp, source.object_diameter
        if diameter is None:
            return downsample_to(slide, wanted, source.mpp, key)
        if wanted is None or source.mpp is not None:
            raise RecipeError(
                f"{key}.object_diameter: is for images of unknown pixel size; give the recipe an "
                "mpp, and the source none"
            )
        areas = truth.object_areas(self._objects.labels)
        if not len(areas):
            raise RecipeError(
                f"{slide.path}: there is no object in it, so its magnification can't be found from "
                f"{key}.object_diameter; leave it out, or give mpp"
            )
        measured = 2 * math.sqrt(float(np.median(areas)) / math.pi)
        reduction = max(1.0, measured * wanted / diameter)
        return reduction, reduction

    def _count(self, reader: FieldReader, pixels: FieldPixels | None) -> CellCounts:
        """Count the classes of a field, by cell.

        The counts, and so the samples, are the same whether the field is kept or not. For fields
        that are too large to be kept, they are estimates.
        """
        shape, classes = reader.image.shape, len(self.recipe.classes)
        if pixels is not None:
            return CellCounts.count(lambda box: pixels.labels[box.slices()], shape, classes)
        if math.prod(shape) <= LARGEST_KEPT:
            truth = reader.truth.open(reader.image)
            return CellCounts.count(lambda box: reader.labelling.labels(truth, box), shape, classes)
        *quick, thorough = reader.truth.strides(shape)
        for stride in quick:
            counts = self._count_every(stride, reader)
            present = [i for i, px in reader.truth.contents.items() if px and i < classes]
            if counts.totals[present].all():
                return counts
        return self._count_every(thorough, reader)

    def _count_every(self, stride: int, reader: FieldReader) -> CellCounts:
        """Count the classes of every `stride`-th pixel along each side."""
        truth = reader.truth.open(reader.image, stride)
        return CellCounts.count(
            lambda box: truth.read(box).labels,
            reader.image.shape,
            len(self.recipe.classes),
            stride,
        )

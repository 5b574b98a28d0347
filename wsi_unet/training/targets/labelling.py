"""From what is true of a box to what is learnt of it: labels, and what parts objects.

Everything looks at what is near alone, so a box with a halo around it gives to the last bit what
the whole image gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.recipe import Recipe, Weighting
from wsi_unet.training.targets.components import ConnectedComponents
from wsi_unet.training.targets.meanings import unlabelled
from wsi_unet.training.targets.separation import (
    halo,
    part_touching,
    parting_halo,
    separation_weights,
)
from wsi_unet.training.targets.truths import Marks, OpenTruth, TruthFile

Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ObjectLabels:
    """Which labels are those of objects.

    Attributes:
        labels: (256,) whether.
        ground: the label of what is of none.
    """

    labels: NDArray[np.bool_]
    ground: int

    @classmethod
    def of(cls, recipe: Recipe) -> ObjectLabels:
        """Return those of a recipe: of all classes but the background."""
        labels = np.zeros(256, np.bool_)
        labels[: len(recipe.classes)] = True
        if recipe.background_index is not None:
            labels[recipe.background_index] = False
        return cls(labels, unlabelled(recipe))

    def classes(self, labels: Labels) -> Labels:
        """Return a number above 0 for each class that has objects, and 0 elsewhere."""
        return np.where(self.labels[labels], labels + 1, 0).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Labelling:
    """How labels of an image are made.

    Attributes:
        shape: (rows, columns) of the image, px.
        objects: which labels are those of objects.
        weighting: how objects are parted.
        parts: the connected parts of the classes; None where the truth tells objects apart, or
            nothing depends on that.
    """

    shape: Shape
    objects: ObjectLabels
    weighting: Weighting
    parts: ConnectedComponents | None = None

    @classmethod
    def of(
        cls, image: TrainingImage, objects: ObjectLabels, weighting: Weighting, truth: TruthFile
    ) -> Labelling:
        """Find out what is needed.

        Args:
            image: whose labels are made.
            objects: which labels are those of objects.
            weighting: how objects are parted.
            truth: of the image.
        """
        if truth.numbered or not (weighting.separation or weighting.part):
            return cls(image.shape, objects, weighting)
        opened = truth.open(image)
        found = ConnectedComponents.find(
            lambda box: objects.classes(opened.read(box).labels), image.shape
        )
        return cls(image.shape, objects, weighting, found)

    def labels(self, truth: OpenTruth, box: Box) -> Labels:
        """Return the labels (h, w) of a box inside the image.

        Args:
            truth: of the image.
            box: px.
        """
        if not self.weighting.part:
            return truth.read(box).labels
        around = self._around(box, 0)
        return self._parted(truth, around)[0][box.relative_to(around).slices()]

    def read(self, truth: OpenTruth, box: Box) -> tuple[Labels, NDArray[np.float32]]:
        """Return labels and separation (h, w) of a box inside the image.

        Args:
            truth: of the image.
            box: px.
        """
        w0, sigma = self.weighting.separation, self.weighting.sigma
        if not w0:
            return self.labels(truth, box), np.zeros(box.shape, np.float32)
        around = self._around(box, halo(sigma))
        labels, numbers = self._parted(truth, around)
        inner = box.relative_to(around)
        return labels[inner.slices()], separation_weights(numbers, w0, sigma, inner)

    def _around(self, box: Box, halo: int) -> Box:
        halo += parting_halo(self.weighting.part)
        return box.grow(halo, halo).intersection(Box.of_shape(self.shape))

    def _parted(self, truth: OpenTruth, box: Box) -> tuple[Labels, NDArray[np.integer[Any]]]:
        """Return labels and objects' numbers of a box, exact where the halo is."""
        marks = truth.read(box)
        numbers = self._numbers(truth, box, marks)
        parted = part_touching(numbers, self.weighting.part)
        labels = np.where(
            (parted == 0) & (numbers != 0), np.uint8(self.objects.ground), marks.labels
        )
        return labels, parted

    def _numbers(self, truth: OpenTruth, box: Box, marks: Marks) -> NDArray[np.integer[Any]]:
        if marks.numbers is not None:
            return np.where(self.objects.labels[marks.labels], marks.numbers, 0)
        if self.parts is None:
            raise ValueError("the parts of classes weren't looked for")
        return self.parts.read(lambda part: self.objects.classes(truth.read(part).labels), box)

"""From ground truth to training targets: labels, and weights that keep objects apart.

Every step looks only at a pixel's neighbourhood, so a box read with a halo gives to the last bit
what the whole image gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape
from wsi_unet.training.images import TrainingImage
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_sections import Boundary, Weighting
from wsi_unet.training.targets.components import ConnectedComponents
from wsi_unet.training.targets.meanings import outside_label
from wsi_unet.training.targets.separation import (
    find_boundaries,
    gap_halo,
    separate_touching,
    separation_halo,
    separation_weights,
)
from wsi_unet.training.targets.truth_files import OpenTruth, TruthFile, TruthWindow

Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ObjectLabels:
    """The labels of classes that have objects.

    Attributes:
        labels: (256,) whether each label is that of a class with objects.
        outside: label of pixels outside all objects.
        boundary: how the boundary is made from the objects; None: there is none.
        boundary_label: label of the boundary, if there is one.
    """

    labels: NDArray[np.bool_]
    outside: int
    boundary: Boundary | None = None
    boundary_label: int = 0

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> ObjectLabels:
        """Return the labels of a recipe: of all its classes but background and boundary."""
        labels = np.zeros(256, np.bool_)
        labels[list(recipe.truth_indices)] = True
        if recipe.background_index is not None:
            labels[recipe.background_index] = False
        return cls(labels, outside_label(recipe), recipe.boundary, recipe.boundary_index or 0)

    def classes(self, labels: Labels) -> Labels:
        """Return a number above 0 for each class that has objects, and 0 elsewhere."""
        return np.where(self.labels[labels], labels + 1, 0).astype(np.uint8)

    @property
    def halo(self) -> int:
        """How far around a pixel decides whether it is of the boundary, px."""
        return 0 if self.boundary is None else self.boundary.halo

    def mark_boundaries(self, labels: Labels, numbers: NDArray[np.integer[Any]]) -> Labels:
        """Return labels with the objects' boundary drawn in, exact except in a margin of `halo`.

        Args:
            labels: (h, w).
            numbers: (h, w), a number above 0 for each object, 0 elsewhere.
        """
        if self.boundary is None:
            return labels
        found = find_boundaries(numbers, self.boundary.reach, self.boundary.rim)
        found &= (numbers > 0) | (labels == self.outside)  # what is ignored stays so
        return np.where(found, np.uint8(self.boundary_label), labels)


@dataclass(frozen=True, eq=False)
class Labelling:
    """How the labels of an image are made.

    Attributes:
        shape: (rows, columns) of the image, px.
        objects: the labels of classes that have objects.
        weighting: how objects are kept apart.
        components: connected components of the classes; None if the truth numbers its objects, or
            the labels don't depend on objects.
    """

    shape: Shape
    objects: ObjectLabels
    weighting: Weighting
    components: ConnectedComponents | None = None

    @classmethod
    def prepare(
        cls, image: TrainingImage, objects: ObjectLabels, weighting: Weighting, truth: TruthFile
    ) -> Labelling:
        """Return the labelling of an image, and find its connected components if needed.

        Args:
            image: image whose labels are made.
            objects: the labels of classes that have objects.
            weighting: how objects are kept apart.
            truth: truth of the image.
        """
        needed = weighting.separation or weighting.part or objects.boundary
        if truth.numbered or not needed:
            return cls(image.shape, objects, weighting)
        opened = truth.open(image)
        components = ConnectedComponents.find(
            lambda box: objects.classes(opened.read(box).labels), image.shape
        )
        return cls(image.shape, objects, weighting, components)

    def labels(self, truth: OpenTruth, box: Box) -> Labels:
        """Return the labels (h, w) of a box inside the image.

        Args:
            truth: truth of the image.
            box: box, px.
        """
        if not self.weighting.part and self.objects.boundary is None:
            return truth.read(box).labels
        grown = self._grow(box, 0)
        return self._separate(truth, grown)[0][box.relative_to(grown).slices()]

    def read(self, truth: OpenTruth, box: Box) -> tuple[Labels, NDArray[np.float32]]:
        """Return the labels and the separation weights (h, w) of a box inside the image.

        Args:
            truth: truth of the image.
            box: box, px.
        """
        w0, sigma = self.weighting.separation, self.weighting.sigma
        if not w0:
            return self.labels(truth, box), np.zeros(box.shape, np.float32)
        grown = self._grow(box, separation_halo(sigma))
        labels, numbers = self._separate(truth, grown)
        inner = box.relative_to(grown)
        return labels[inner.slices()], separation_weights(numbers, w0, sigma, inner)

    def number_objects(self, truth: OpenTruth, box: Box) -> NDArray[np.integer[Any]]:
        """Return the numbers (h, w) of the truth's objects in a box inside the image, 0 for none.

        Needs a truth that numbers its objects, or a recipe that keeps objects apart.
        """
        return self._number_objects(truth, box, truth.read(box))

    def _grow(self, box: Box, halo: int) -> Box:
        """Return a box grown by a halo, and by those of gaps and boundaries, inside the image."""
        halo += gap_halo(self.weighting.part) + self.objects.halo
        return box.grow(halo, halo).intersection(Box.from_shape(self.shape))

    def _separate(self, truth: OpenTruth, box: Box) -> tuple[Labels, NDArray[np.integer[Any]]]:
        """Return labels and object numbers of a box, exact except in a margin of those halos."""
        window = truth.read(box)
        numbers = self._number_objects(truth, box, window)
        separated = separate_touching(numbers, self.weighting.part)
        lost = (separated == 0) & (numbers != 0)
        labels = np.where(lost, np.uint8(self.objects.outside), window.labels)
        return self.objects.mark_boundaries(labels, separated), separated

    def _number_objects(
        self, truth: OpenTruth, box: Box, window: TruthWindow
    ) -> NDArray[np.integer[Any]]:
        if window.numbers is not None:
            return np.where(self.objects.labels[window.labels], window.numbers, 0)
        if self.components is None:
            raise ValueError("the connected components weren't found beforehand")
        return self.components.read(
            lambda inside: self.objects.classes(truth.read(inside).labels), box
        )

"""Samples: windows of fields, warped and recoloured, as a network in training sees them.

Sample number i depends on the recipe's seed and i alone, so it is the same whichever process makes
it, in whatever order, and a resumed training needs to remember nothing about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_unet.colour import CHANNEL_WEIGHTS
from wsi_unet.errors import RecipeError
from wsi_unet.models.architectures.unet import UNetConfig, next_legal_side
from wsi_unet.models.spec import Normalisation
from wsi_unet.training.augmentation.class_balance import class_balance
from wsi_unet.training.augmentation.colour import colour
from wsi_unet.training.augmentation.cropping import Crop, middle
from wsi_unet.training.augmentation.geometric import Warp
from wsi_unet.training.augmentation.synthetic import image_without_nuclei
from wsi_unet.training.fields import IGNORED, NOTHING, TrainingField
from wsi_unet.training.recipe import Recipe

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with its labels.

    Attributes:
        image: float32 (c, H, W), normalised.
        labels: uint8 (h, w), of the middle of the image (of all of it, if the network's padding is
            "same"): class index, `IGNORED` or `NOTHING`.
        weights: float32 (h, w), weight of each pixel in the cross entropies.
        where: field and position, for messages.
    """

    image: Tensor
    labels: Tensor
    weights: Tensor
    where: str


@dataclass(frozen=True)
class SampleSides:
    """Sides of a sample, px.

    Attributes:
        image: side of the image that the network sees.
        labels: side of the labels that it predicts.
    """

    image: int
    labels: int


def sample_sides(config: UNetConfig, tile: int) -> SampleSides:
    """Return the smallest sides with which a network predicts at least `tile` px per side."""
    shrink = config.border().shrink
    image = next_legal_side(config, tile + 2 * shrink)
    return SampleSides(image, image - 2 * shrink)


class Samples:
    """All samples of a training, by number.

    Args:
        recipe: recipe of the training.
        fields: fields to train on.
        normalisation: how intensities are normalised.

    Raises:
        RecipeError: a class that samples are to be centred on is in no field.
    """

    def __init__(
        self, recipe: Recipe, fields: Sequence[TrainingField], normalisation: Normalisation
    ) -> None:
        self.recipe = recipe
        self.fields = tuple(fields)
        self.normalisation = normalisation
        self.sides = sample_sides(recipe.network, recipe.sampling.tile)
        self._choices = _list_choices(recipe, self.fields)
        self._balance = _weigh_labels(recipe, self.fields)
        self._are_objects = np.arange(256) < len(recipe.classes)
        if recipe.background_index is not None:
            self._are_objects[recipe.background_index] = False

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.recipe.network.in_channels

    def __getitem__(self, number: int) -> Sample:
        rng = np.random.default_rng([self.recipe.running.seed, number])
        empty = rng.random() < self.recipe.sampling.empty
        draw = self._draw_synthetic if empty else self._draw_window
        image, labels, separation, where = draw(rng)
        return Sample(
            image=torch.from_numpy(_normalise(image, self.normalisation)),
            labels=torch.from_numpy(np.ascontiguousarray(labels)),
            weights=torch.from_numpy(self._balance[labels] + separation),
            where=where,
        )

    def _draw_window(self, rng: np.random.Generator) -> tuple[Image, Labels, Image, str]:
        """Return image (c, H, W), labels and separation (h, w) of a field, and its position."""
        field, (y, x) = self._draw_centre(rng)
        crop = Crop.from_warp(Warp.draw(self.recipe.warping, rng), self.sides.image)
        window = field.read(crop.around(y, x))
        labels = crop.labels(window.labels)
        image = colour(
            _to_channels(crop.image(window.image), self.recipe.channel_order),
            self._are_objects[labels],
            self.recipe.colouring,
            rng,
        )
        side = self.sides.labels
        separation = np.zeros((side, side), np.float32)
        if self.recipe.weighting.separation:
            separation = middle(crop.weights(window.separation), side)
        return image, middle(labels, side), separation, f"{field.name} at ({x}, {y}) px"

    def _draw_synthetic(self, rng: np.random.Generator) -> tuple[Image, Labels, Image, str]:
        """Return what `_draw_window` does, of synthetic tissue without objects."""
        side = self.sides.labels
        background = self.recipe.background_index
        labels = np.full((side, side), NOTHING if background is None else background, np.uint8)
        tissue = image_without_nuclei(self.sides.image, rng)
        image = _to_channels(tissue, self.recipe.channel_order)
        return image, labels, np.zeros((side, side), np.float32), "synthetic background"

    def _draw_centre(self, rng: np.random.Generator) -> tuple[TrainingField, tuple[int, int]]:
        """Draw a class, then a field, then a pixel; and shift it by the jitter."""
        chances = [choice.probability for choice in self._choices]
        chosen = self._choices[rng.choice(len(self._choices), p=chances)]
        field = self.fields[rng.choice(chosen.fields, p=chosen.probabilities)]
        y, x = field.point(chosen.index, rng)
        most = self.recipe.sampling.jitter
        if most:
            dy, dx = rng.integers(-most, most + 1, 2)
            y, x = y + int(dy), x + int(dx)
        return field, (y, x)


@dataclass(frozen=True, eq=False)
class _Choice:
    """A class that samples are centred on.

    Attributes:
        index: index of the class; None: any class.
        probability: how often it is chosen.
        fields: numbers of the fields with pixels of it.
        probabilities: how often each of these fields is chosen.
    """

    index: int | None
    probability: float
    fields: NDArray[np.intp]
    probabilities: NDArray[np.float64]


def _list_choices(recipe: Recipe, fields: Sequence[TrainingField]) -> list[_Choice]:
    wanted = {name: share for name, share in recipe.sampling.classes.items() if share > 0}
    if not wanted:
        area = np.array([sum(field.amounts.values()) for field in fields])
        return [_make_choice(recipe, fields, None, 1.0, area)]
    total = math.fsum(wanted.values())
    choices = []
    for name, share in wanted.items():
        index = recipe.class_index(name)
        present = np.array([float(field.amounts.get(index, 0) > 0) for field in fields])
        if not present.any():
            raise RecipeError(f"sampling.classes: no field that is trained on has any {name!r}")
        choices.append(_make_choice(recipe, fields, index, share / total, present))
    return choices


def _make_choice(
    recipe: Recipe,
    fields: Sequence[TrainingField],
    index: int | None,
    probability: float,
    weights: NDArray[np.float64],
) -> _Choice:
    """Return a choice whose fields are drawn by their source's share, and in it by their weight."""
    chances = np.zeros(len(fields))
    sources = np.array([field.source for field in fields])
    for source in np.unique(sources):
        members = sources == source
        if weights[members].any():
            chances[members] = recipe.data[source].share * weights[members] / weights[members].sum()
    members = np.flatnonzero(chances)
    return _Choice(index, probability, members, chances[members] / chances.sum())


def _weigh_labels(recipe: Recipe, fields: Sequence[TrainingField]) -> NDArray[np.float32]:
    """Return the weight of a pixel of each label, (256,); 0 for ignored ones."""
    classes = len(recipe.classes)
    weights = np.ones(256, np.float32)
    if recipe.weighting.balance:
        amounts: Mapping[int, float] = {
            index: math.fsum(field.amounts.get(index, 0) for field in fields)
            for index in range(classes)
        }
        weights[:classes] = class_balance([amounts[index] for index in range(classes)])
    weights[IGNORED] = 0
    return weights


def _to_channels(image: Image, order: str) -> Image:
    """Return the network's channels of R, G, B planes (3, h, w)."""
    if order == "rgb":
        return image
    weights = np.array(CHANNEL_WEIGHTS["gray"], np.float32)
    channels: Image = np.einsum("kc,cyx->kyx", weights, image)
    return channels


def _normalise(image: Image, normalisation: Normalisation) -> Image:
    mean, std = (
        np.array(values, np.float32)[:, None, None]
        for values in (normalisation.mean, normalisation.std)
    )
    normalised: Image = image - mean
    normalised /= std
    return normalised

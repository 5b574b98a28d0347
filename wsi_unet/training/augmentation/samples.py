"""Samples: pieces of fields, warped and recoloured, as a network in training sees them.

Sample number i is drawn from the recipe's seed and i alone, so it is the same whoever makes it, in
whatever order, and a training that is resumed needs to remember nothing about it.
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
from wsi_unet.training.augmentation.synthetic import ground_without_nuclei
from wsi_unet.training.fields import IGNORED, NOTHING, TrainingField
from wsi_unet.training.recipe import Recipe

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Sample:
    """What a network is shown once.

    Attributes:
        image: float32 (c, H, W), scaled as the network wants it.
        labels: uint8 (h, w), the middle of the image (all of it, if the network's padding is
            "same"): class index, `IGNORED` or `NOTHING`.
        weights: float32 (h, w), what each pixel weighs in the cross entropies.
        where: field and place, for messages.
    """

    image: Tensor
    labels: Tensor
    weights: Tensor
    where: str


@dataclass(frozen=True)
class SampleSides:
    """Sides of a sample, px.

    Attributes:
        image: of what the network sees.
        labels: of what it gives.
    """

    image: int
    labels: int


def sample_sides(config: UNetConfig, tile: int) -> SampleSides:
    """Return the smallest sides with which a network gives at least `tile` px per side."""
    shrink = config.border().shrink
    image = next_legal_side(config, tile + 2 * shrink)
    return SampleSides(image, image - 2 * shrink)


class Samples:
    """All samples of a training, by number."""

    def __init__(self, recipe: Recipe, fields: Sequence[TrainingField], scaling: Normalisation) -> None:
        """Plan where samples come from.

        Args:
            recipe: what they are like.
            fields: to be trained on.
            scaling: of intensities.

        Raises:
            RecipeError: a class that centres are to lie on is in no field.
        """
        self.recipe = recipe
        self.fields = tuple(fields)
        self.scaling = scaling
        self.sides = sample_sides(recipe.network, recipe.sampling.tile)
        self._choices = _choices(recipe, self.fields)
        self._balance = _balance(recipe, self.fields)
        self._are_objects = np.arange(256) < len(recipe.classes)
        if recipe.background_index is not None:
            self._are_objects[recipe.background_index] = False

    @property
    def channels(self) -> int:
        """Of the images."""
        return self.recipe.network.in_channels

    def __getitem__(self, number: int) -> Sample:
        rng = np.random.default_rng([self.recipe.running.seed, number])
        empty = rng.random() < self.recipe.sampling.empty
        image, labels, separation, where = self._empty(rng) if empty else self._drawn(rng)
        return Sample(
            image=torch.from_numpy(_scaled(image, self.scaling)),
            labels=torch.from_numpy(np.ascontiguousarray(labels)),
            weights=torch.from_numpy(self._balance[labels] + separation),
            where=where,
        )

    def _drawn(self, rng: np.random.Generator) -> tuple[Image, Labels, Image, str]:
        """Return image (c, H, W), labels, separation (h, w), and where they are from."""
        field, (y, x) = self._place(rng)
        cut = Crop.of(Warp.draw(self.recipe.warping, rng), self.sides.image)
        piece = field.read(cut.around(y, x))
        labels = cut.labels(piece.labels)
        image = colour(
            _channels(cut.image(piece.image), self.recipe.channel_order),
            self._are_objects[labels],
            self.recipe.colouring,
            rng,
        )
        side = self.sides.labels
        separation = np.zeros((side, side), np.float32)
        if self.recipe.weighting.separation:
            separation = middle(cut.weights(piece.separation), side)
        return image, middle(labels, side), separation, f"{field.name} at ({x}, {y}) px"

    def _empty(self, rng: np.random.Generator) -> tuple[Image, Labels, Image, str]:
        side = self.sides.labels
        background = self.recipe.background_index
        labels = np.full((side, side), NOTHING if background is None else background, np.uint8)
        ground = ground_without_nuclei(self.sides.image, rng)
        image = _channels(ground, self.recipe.channel_order)
        return image, labels, np.zeros((side, side), np.float32), "made-up ground"

    def _place(self, rng: np.random.Generator) -> tuple[TrainingField, tuple[int, int]]:
        """Choose class, source, field, point; and move it a little."""
        chosen = self._choices[rng.choice(len(self._choices), p=[c.share for c in self._choices])]
        field = self.fields[rng.choice(chosen.fields, p=chosen.chances)]
        y, x = field.point(chosen.index, rng)
        most = self.recipe.sampling.jitter
        if most:
            dy, dx = rng.integers(-most, most + 1, 2)
            y, x = y + int(dy), x + int(dx)
        return field, (y, x)


@dataclass(frozen=True, eq=False)
class _Choice:
    """A class that centres lie on, None for any, how often, and in which fields how often."""

    index: int | None
    share: float
    fields: NDArray[np.intp]
    chances: NDArray[np.float64]


def _choices(recipe: Recipe, fields: Sequence[TrainingField]) -> list[_Choice]:
    wanted = {name: share for name, share in recipe.sampling.classes.items() if share > 0}
    if not wanted:
        area = np.array([sum(field.amounts.values()) for field in fields])
        return [_choice(recipe, fields, None, 1.0, area)]
    total = math.fsum(wanted.values())
    found = []
    for name, share in wanted.items():
        index = recipe.class_index(name)
        there = np.array([float(field.amounts.get(index, 0) > 0) for field in fields])
        if not there.any():
            raise RecipeError(f"sampling.classes: there is no {name!r} in what is trained on")
        found.append(_choice(recipe, fields, index, share / total, there))
    return found


def _choice(
    recipe: Recipe,
    fields: Sequence[TrainingField],
    index: int | None,
    share: float,
    worth: NDArray[np.float64],
) -> _Choice:
    """Return with what chance each field is drawn: by its source's share, and in it by worth."""
    chances = np.zeros(len(fields))
    sources = np.array([field.source for field in fields])
    for source in np.unique(sources):
        members = sources == source
        if worth[members].any():
            chances[members] = recipe.data[source].share * worth[members] / worth[members].sum()
    members = np.flatnonzero(chances)
    return _Choice(index, share, members, chances[members] / chances.sum())


def _balance(recipe: Recipe, fields: Sequence[TrainingField]) -> NDArray[np.float32]:
    """Return what a pixel of each label weighs, (256,); those that count for nothing 0."""
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


def _channels(image: Image, order: str) -> Image:
    """Return the network's channels of R, G, B planes (3, h, w)."""
    if order == "rgb":
        return image
    weights = np.array(CHANNEL_WEIGHTS["gray"], np.float32)
    channels: Image = np.einsum("kc,cyx->kyx", weights, image)
    return channels


def _scaled(image: Image, scaling: Normalisation) -> Image:
    mean, std = (
        np.array(numbers, np.float32)[:, None, None] for numbers in (scaling.mean, scaling.std)
    )
    scaled: Image = image - mean
    scaled /= std
    return scaled

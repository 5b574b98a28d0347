"""With what intensities are scaled, where a recipe leaves that to the samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsi_unet.models.spec import Normalisation
from wsi_unet.slides.statistics import LEAST_DEVIATION
from wsi_unet.training.augmentation.samples import Samples
from wsi_unet.training.fields import Field
from wsi_unet.training.recipe import Recipe

SAMPLES = 64
"""How many samples are looked at, if they are small."""

ENOUGH = 2**25
"""Pixels after which no further one is: where tiles are huge, 64 would take minutes."""

DIGITS = 4
"""That mean and deviation are rounded to: for people to read."""


def choose_normalisation(recipe: Recipe, fields: Sequence[Field]) -> Normalisation:
    """Return the recipe's scaling; what it doesn't say is measured on samples.

    Args:
        recipe: what samples are like.
        fields: to be trained on.

    Raises:
        RecipeError: a class that centres are to lie on is in no field.
        SlideError: if a field can't be read.
    """
    said, channels = recipe.scaling, recipe.network.in_channels
    if said.mean is not None and said.std is not None:
        return Normalisation(mean=said.mean, std=said.std)
    samples = Samples(recipe, fields, Normalisation(mean=(0.0,) * channels, std=(1.0,) * channels))
    count, sums, squares = 0, np.zeros(channels), np.zeros(channels)
    for number in range(SAMPLES):
        values = samples[number].image.double().numpy().reshape(channels, -1)
        count += values.shape[1]
        sums += values.sum(axis=1)
        squares += (values**2).sum(axis=1)
        if count >= ENOUGH:
            break
    mean = sums / count
    std = np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), LEAST_DEVIATION)
    return Normalisation(
        mean=said.mean or tuple(round(float(value), DIGITS) for value in mean),
        std=said.std or tuple(round(float(value), DIGITS) for value in std),
    )

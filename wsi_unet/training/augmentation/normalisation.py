"""The normalisation of intensities, measured on samples if the recipe doesn't give it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsi_unet.models.spec import Normalisation
from wsi_unet.slides.colour_statistics import LEAST_DEVIATION
from wsi_unet.training.augmentation.samples import Samples
from wsi_unet.training.fields import TrainingField
from wsi_unet.training.recipe import Recipe

SAMPLES = 64
"""Most samples to measure."""

ENOUGH = 2**25
"""Pixels after which no more samples are measured: with huge tiles, 64 would take minutes."""

DIGITS = 4
"""Digits that mean and deviation are rounded to, for people to read."""


def choose_normalisation(recipe: Recipe, fields: Sequence[TrainingField]) -> Normalisation:
    """Return the recipe's normalisation; what it doesn't give is measured on samples.

    Args:
        recipe: recipe of the training.
        fields: fields to train on.

    Raises:
        RecipeError: a class that samples are to be centred on is in no field.
        SlideError: a field can't be read.
    """
    given, channels = recipe.scaling, recipe.network.in_channels
    if given.mean is not None and given.std is not None:
        return Normalisation(mean=given.mean, std=given.std)
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
        mean=given.mean or tuple(round(float(value), DIGITS) for value in mean),
        std=given.std or tuple(round(float(value), DIGITS) for value in std),
    )

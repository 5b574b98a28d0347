"""Stain augmentation: images as optical densities, in which the dyes' contributions add up.

By the Beer-Lambert law each dye absorbs a share of the light that the others leave, so its optical
densities −ln(I / I₀) in red, green and blue are its amount times its own colour.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]
"""(3, h, w): red, green, blue; densities or intensities of 0 to 1."""

DYES = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density (red, green, blue) of haematoxylin, eosin, DAB: Ruifrok and Johnston 2001."""

DARKEST = 1 / 255
"""The least intensity that differs from 0."""

GROUND_QUANTILE = 0.05
"""Quantile of a sample's densities that is taken as the background's."""

LIGHT = (0.88, 1.03)
"""(least, most) factor of the illumination in each channel."""


def density_of(image: Planes) -> Planes:
    """Return optical densities, −ln of the intensities."""
    density = np.maximum(image, np.float32(DARKEST))
    np.log(density, out=density)
    return np.negative(density, out=density)


def intensity_of(density: Planes) -> Planes:
    """Return the intensities, 0 to 1, of optical densities."""
    intensity = np.maximum(density, 0)
    np.negative(intensity, out=intensity)
    return np.exp(intensity, out=intensity)


def restain(density: Planes, stain: float, hue: float, rng: np.random.Generator) -> Planes:
    """Return the densities with varied amounts and colours of the dyes.

    Args:
        density: densities of the image.
        stain: largest logarithm of the factor of a dye's amount.
        hue: deviation of each component of a dye's colour; its length stays.
        rng: random generator.
    """
    amounts = np.exp(rng.uniform(-stain, stain, 3))
    dyes = np.maximum(DYES + rng.normal(0, hue, (3, 3)), 0)
    strengths = np.linalg.norm(dyes, axis=1, keepdims=True)
    dyes *= np.linalg.norm(DYES, axis=1, keepdims=True) / np.maximum(strengths, 1e-6)
    matrix = (dyes.T * amounts) @ np.linalg.inv(DYES.T)
    return np.stack([_mix(row, density) for row in matrix.astype(np.float32)])


def _mix(weights: NDArray[np.float32], planes: Planes) -> NDArray[np.float32]:
    """Return the weighted sum of planes, (h, w)."""
    mixed: NDArray[np.float32] = planes[0] * weights[0]
    for plane, weight in zip(planes[1:], weights[1:], strict=True):
        mixed += plane * weight
    return mixed


def relight(density: Planes, rng: np.random.Generator) -> Planes:
    """Return the densities with another white balance.

    A random share of the colour of the sample's lightest pixels is removed, up to all of it, as if
    they were clean glass; and the illumination gets another colour.
    """
    ground = np.quantile(density[:, ::4, ::4].reshape(3, -1), GROUND_QUANTILE, axis=1)
    change = -rng.uniform(0, 1) * ground - np.log(rng.uniform(*LIGHT, 3))
    return density + change.astype(np.float32)[:, None, None]

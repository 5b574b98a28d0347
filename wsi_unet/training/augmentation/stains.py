"""Dyes and light: images as optical densities, in which what lies in the light's way adds up.

By the law of Beer and Lambert each dye takes its share of the light that the others leave, so its
optical densities −ln(I / I₀) in red, green and blue are its amount times its own colour.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]
"""(3, h, w): red, green, blue; densities or intensities of 0 to 1."""

DYES = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density (red, green, blue) of haematoxylin, eosin, DAB: Ruifrok and Johnston 2001."""

DARKEST = 1 / 255
"""The least intensity that is told from none."""

GROUND_QUANTILE = 0.05
"""The least dense part of a sample, whose colour is taken for the ground's."""

LIGHT = (0.88, 1.03)
"""(least, most) factor of the light in each channel."""


def density_of(image: Planes) -> Planes:
    """Return optical densities, −ln of the intensities."""
    density = np.maximum(image, np.float32(DARKEST))
    np.log(density, out=density)
    return np.negative(density, out=density)


def intensity_of(density: Planes) -> Planes:
    """Return the intensities, 0 to 1, that optical densities leave."""
    intensity = np.maximum(density, 0)
    np.negative(intensity, out=intensity)
    return np.exp(intensity, out=intensity)


def restain(density: Planes, stain: float, hue: float, rng: np.random.Generator) -> Planes:
    """Return the densities with other amounts of the dyes, and other dyes.

    Args:
        density: of the image.
        stain: largest logarithm of the factor of a dye's amount.
        hue: deviation of each number of the dyes' colours, which keep their strength.
        rng: source of chance.
    """
    amounts = np.exp(rng.uniform(-stain, stain, 3))
    dyes = np.maximum(DYES + rng.normal(0, hue, (3, 3)), 0)
    strengths = np.linalg.norm(dyes, axis=1, keepdims=True)
    dyes *= np.linalg.norm(DYES, axis=1, keepdims=True) / np.maximum(strengths, 1e-6)
    matrix = (dyes.T * amounts) @ np.linalg.inv(DYES.T)
    return np.stack([_mix(row, density) for row in matrix.astype(np.float32)])


def _mix(shares: NDArray[np.float32], planes: Planes) -> NDArray[np.float32]:
    """Return the sum of planes, each times its share, (h, w)."""
    mixed: NDArray[np.float32] = planes[0] * shares[0]
    for plane, share in zip(planes[1:], shares[1:], strict=True):
        mixed += plane * share
    return mixed


def relight(density: Planes, rng: np.random.Generator) -> Planes:
    """Return the densities under another white balance.

    Some of the colour of the sample's lightest parts is taken away, down to none at all as of clean
    glass, and the light gets another colour.
    """
    ground = np.quantile(density[:, ::4, ::4].reshape(3, -1), GROUND_QUANTILE, axis=1)
    change = -rng.uniform(0, 1) * ground - np.log(rng.uniform(*LIGHT, 3))
    return density + change.astype(np.float32)[:, None, None]

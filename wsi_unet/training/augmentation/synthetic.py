"""Synthetic tissue without nuclei, in optical densities.

Most annotated fields have plain backgrounds, which teaches a network that whatever is dark is a
nucleus. Slides also have fibres, membranes, red blood cells, ink and keratin.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft

from wsi_unet.geometry import Shape
from wsi_unet.training.augmentation.filters import TRUNCATE, blur_inside, gaussian_taps, radius_of
from wsi_unet.training.augmentation.noise import white_noise
from wsi_unet.training.augmentation.stains import DYES, Planes, intensity_of

Plane = NDArray[np.float32]
"""(h, w)."""

COARSE = 2.0
"""Least σ, px, from which smooth noise is interpolated from white noise at a distance of σ."""

RED_CELLS = (0.05, 0.8, 0.6)
INK = (0.9, 0.3, 0.4)
"""Optical densities (red, green, blue) of red blood cells and of the green ink on margins."""


def image_without_nuclei(side: int, rng: np.random.Generator) -> Planes:
    """Return an image (3, side, side), 0 to 1, of glass or of tissue without nuclei."""
    density = np.full((3, side, side), rng.uniform(0, 0.15), np.float32)
    if rng.random() < 0.7:
        density += tissue_without_nuclei((side, side), rng)
    if rng.random() < 0.5:
        density += keratin((side, side), rng)
    return intensity_of(density)


def tissue_without_nuclei(shape: Shape, rng: np.random.Generator) -> Planes:
    """Return densities (3, h, w) of cytoplasm, fibres, membranes, red blood cells and ink."""
    density = np.zeros((3, *shape), np.float32)
    if rng.random() < 0.8:
        cytoplasm = clouds(shape, rng.uniform(10, 40), rng)
        _add(density, cytoplasm, rng.uniform(-1, 2), rng.uniform(0, 0.5) * dye(0.8, rng))
    for _ in range(int(rng.integers(0, 4))):
        width = rng.uniform(0.6, 4)
        fibre = fibres(shape, width * rng.uniform(5, 20), width, rng)
        _add(density, fibre, rng.uniform(-1.2, 1), rng.uniform(0.05, 0.6) * dye(0.25, rng))
    for _ in range(int(rng.integers(0, 3))):
        _add(density, lines(shape, rng), 0, rng.uniform(0.1, 0.9) * dye(0.8, rng))
    for colour in (RED_CELLS, INK):
        if rng.random() < 0.15:
            specks = clouds(shape, rng.uniform(1, 3), rng) > rng.uniform(1.2, 2.5)
            _add(density, specks.astype(np.float32), 0, rng.uniform(0.3, 1.3) * np.array(colour))
    density *= 1 + np.float32(rng.uniform(0, 0.15)) * clouds(shape, 0.7, rng)
    return density


def keratin(shape: Shape, rng: np.random.Generator) -> Planes:
    """Return densities (3, h, w) of dark sheets and flakes, larger than nuclei."""
    density = np.zeros((3, *shape), np.float32)
    if rng.random() < 0.5:
        sheets = fibres(shape, rng.uniform(40, 80), rng.uniform(0.8, 5), rng)
        sheets += np.float32(rng.uniform(-1, 1.5))
    else:
        sheets = np.maximum(lines(shape, rng), lines(shape, rng))
    _add(density, sheets, 0, rng.uniform(0.4, 1.6) * dye(0.9, rng, least=0.2))
    return density


def dye(most: float, rng: np.random.Generator, least: float = 0.0) -> NDArray[np.float64]:
    """Return the density (3,), of length 1, of a colour between pink and purple.

    Args:
        most: largest share of purple, which is haematoxylin's.
        rng: random generator.
        least: least share of purple.
    """
    purple = rng.uniform(least, most)
    pink = np.array([rng.uniform(0.03, 0.25), 0.9, rng.uniform(0.15, 0.6)])
    colour = (1 - purple) * pink / np.linalg.norm(pink) + purple * DYES[0]
    unit: NDArray[np.float64] = colour / np.linalg.norm(colour)
    return unit


def clouds(shape: Shape, sigma: float, rng: np.random.Generator) -> Plane:
    """Return noise (h, w) of unit variance, smoothed by a Gaussian of `sigma` px."""
    if sigma < COARSE:
        return _fine_clouds(shape, sigma, rng)
    rows, columns = (_smoothing(side, sigma) for side in shape)
    white = torch.from_numpy(white_noise((rows.shape[1], columns.shape[1]), rng))
    # By PyTorch, which is set to one thread: the last bits may depend on the number of threads.
    noise: Plane = (rows @ white @ columns.T).numpy()
    return noise


def _fine_clouds(shape: Shape, sigma: float, rng: np.random.Generator) -> Plane:
    white = white_noise([side + 2 * radius_of(sigma) for side in shape], rng)
    noise: Plane = blur_inside(white, sigma) / np.square(gaussian_taps(sigma)).sum()
    return noise


def _smoothing(side: int, sigma: float) -> torch.Tensor:
    """Return the matrix (side, n) that smooths and interpolates white noise along one axis.

    The white noise has a spacing of σ px: a finer one would differ by 1 part in 10,000 (by
    Poisson's summation formula, the variance's ripple is 2 exp(−π²)).
    """
    reach = math.ceil(TRUNCATE)
    points = np.arange(-reach, math.ceil((side - 1) / sigma) + reach + 1)
    position = np.arange(side) / sigma
    taps = np.exp(-np.square((position[:, None] - points).astype(np.float32)) / 2)
    return torch.from_numpy(taps / np.sqrt(np.square(taps).sum(axis=1, keepdims=True)))


def fibres(shape: Shape, along: float, across: float, rng: np.random.Generator) -> Plane:
    """Return noise (h, w) of unit variance, smoothed by an oblong Gaussian in a random direction.

    Args:
        shape: (h, w).
        along: σ of the Gaussian in that direction, px.
        across: σ of the Gaussian at right angles to it, px.
        rng: random generator.
    """
    rows, columns = (fft.next_fast_len(side, real=True) for side in shape)
    ky, kx = 2 * np.pi * fft.fftfreq(rows)[:, None], 2 * np.pi * fft.rfftfreq(columns)[None]
    angle = rng.uniform(0, np.pi)
    u, v = kx * np.cos(angle) + ky * np.sin(angle), ky * np.cos(angle) - kx * np.sin(angle)
    damping = np.exp(-(((u * along) ** 2 + (v * across) ** 2) / 2).astype(np.float32))
    # White noise in real and imaginary part of each frequency. All columns but the first stand for
    # two frequencies; of the first, the transform takes the real part only.
    white = white_noise((*damping.shape, 2), rng).view(np.complex64)[..., 0]
    variance = 4 * np.square(damping).sum() - 3 * np.square(damping[:, 0]).sum()
    noise: Plane = fft.irfft2(white * damping, s=(rows, columns))
    noise *= rows * columns / math.sqrt(variance)
    return noise[: shape[0], : shape[1]]


def lines(shape: Shape, rng: np.random.Generator) -> Plane:
    """Return thin curved lines (h, w), 0 to 1: contour lines of smooth noise."""
    level = clouds(shape, rng.uniform(6, 30), rng) - np.float32(rng.uniform(-1, 1))
    down, right = np.gradient(level)
    slope = np.sqrt(down**2 + right**2) + np.float32(1e-3)
    distance = level / slope / np.float32(rng.uniform(0.6, 2))
    line: Plane = np.exp(-(distance**2) / 2)
    return line


def _add(density: Planes, amount: Plane, offset: float, colour: NDArray[np.float64]) -> None:
    """Add `amount` + `offset`, where it is above 0, of a dye with the colour (3,) to a density."""
    amount = np.maximum(amount + np.float32(offset), 0)
    for plane, strength in zip(density, colour.astype(np.float32), strict=True):
        plane += amount * strength

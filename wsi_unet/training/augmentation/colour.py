"""Colour augmentation: intensities of samples are varied, positions aren't.

Images are float32 (3 or 1, h, w), 0 to 1. Each step returns a new image; steps that aren't wanted
don't change a bit.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from wsi_unet.training.augmentation.counterstain import counterstain
from wsi_unet.training.augmentation.filters import gaussian_blur
from wsi_unet.training.augmentation.noise import white_noise
from wsi_unet.training.augmentation.stains import density_of, intensity_of, relight, restain
from wsi_unet.training.augmentation.synthetic import tissue_without_nuclei
from wsi_unet.training.recipe_sections import Colouring

Planes = NDArray[np.float32]
"""(3 or 1, h, w), 0 to 1."""

FOCUS = (0.4, 1.3)
"""(least, most) σ of the Gaussian that an image is blurred or sharpened with, px."""

STRENGTH = (-1.2, 1.0)
"""(most sharpening, most blur): factor of the difference to the blurred image that is added."""

COARSER = (1.0, 2.0)
"""(least, most) downsampling of an image of lower resolution."""

QUALITY = (40, 95)
"""(least, most) JPEG quality."""


def colour(
    image: Planes, objects: NDArray[np.bool_], settings: Colouring, rng: np.random.Generator
) -> Planes:
    """Return an image with varied colours, tones and defects, in the order of the settings.

    With default settings, the image is returned as it is. Stains, white balance and synthetic
    tissue need three channels; the recipe is checked for that.

    Args:
        image: (3 or 1, h, w).
        objects: (h, w), false in the background; for the counterstain.
        settings: what is varied.
        rng: random generator.
    """
    image = _change_stain(image, objects, settings, rng)
    image = _change_tones(image, settings, rng)
    if rng.random() < settings.blur:
        image = _change_focus(image, rng)
    if settings.noise:
        image = _add_noise(image, settings.noise, rng)
    if rng.random() < settings.low_resolution:
        image = _make_coarser(image, rng)
    if rng.random() < settings.jpeg:
        image = _compress(image, rng)
    return image


def _change_stain(
    image: Planes, objects: NDArray[np.bool_], settings: Colouring, rng: np.random.Generator
) -> Planes:
    stained = settings.stain > 0 or settings.stain_hue > 0
    shares = settings.counterstain, settings.ground, settings.made_up
    counterstained, lit, covered = (rng.random() < share for share in shares)
    if not (stained or counterstained or lit or covered):
        return image
    density = density_of(image)
    if counterstained:
        density = counterstain(density, objects, rng)
    if stained:
        density = restain(density, settings.stain, settings.stain_hue, rng)
    if lit:
        density = relight(density, rng)
    if covered:
        density += tissue_without_nuclei((image.shape[1], image.shape[2]), rng)
    return intensity_of(density)


def _change_tones(image: Planes, settings: Colouring, rng: np.random.Generator) -> Planes:
    """Return the image with another brightness, contrast around its mean, and gamma."""
    brightness = rng.uniform(-settings.brightness, settings.brightness)
    contrast, gamma = (
        float(np.exp(rng.uniform(*np.log(factors))))
        for factors in (settings.contrast, settings.gamma)
    )
    if brightness or contrast != 1:
        offset = float(image.mean()) * (1 - contrast) + brightness
        image = _clipped(image * np.float32(contrast) + np.float32(offset))
    return image if gamma == 1 else image ** np.float32(gamma)


def _change_focus(image: Planes, rng: np.random.Generator) -> Planes:
    """Return the image blurred, or sharpened as scanners do."""
    sigma, strength = rng.uniform(*FOCUS), rng.uniform(*STRENGTH)
    blurred = gaussian_blur(image, sigma)
    return _clipped(image + np.float32(strength) * (blurred - image))


def _add_noise(image: Planes, most: float, rng: np.random.Generator) -> Planes:
    noise = white_noise(image.shape, rng)
    noise *= np.float32(rng.uniform(0, most))
    noise += image
    return _clipped(noise)


def _make_coarser(image: Planes, rng: np.random.Generator) -> Planes:
    """Return the image downsampled and enlarged again."""
    factor = rng.uniform(*COARSER)
    size = [max(1, round(side / factor)) for side in image.shape[1:]]
    planes = torch.from_numpy(np.ascontiguousarray(image))[None]
    small = F.interpolate(planes, size=size, mode="bilinear", antialias=True)
    return _clipped(F.interpolate(small, size=image.shape[1:], mode="bicubic")[0].numpy())


def _compress(image: Planes, rng: np.random.Generator) -> Planes:
    """Return the image with JPEG artefacts."""
    pixels = np.rint(image * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
    file, (least, most) = io.BytesIO(), QUALITY
    picture = Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels)
    picture.save(file, "JPEG", quality=int(rng.integers(least, most + 1)))
    decoded = np.asarray(Image.open(file)).reshape(pixels.shape).transpose(2, 0, 1)
    return np.ascontiguousarray(decoded, np.float32) / np.float32(255)


def _clipped(image: Planes) -> Planes:
    return np.clip(image, 0, 1, out=image)

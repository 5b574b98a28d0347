from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import hed_from_rgb, rgb_from_hed

from wsi_unet.training.augmentation.colour import COARSER, FOCUS, STRENGTH, colour
from wsi_unet.training.augmentation.stains import DYES, density_of, intensity_of, relight, restain
from wsi_unet.training.recipe_sections import Colouring

Image = NDArray[np.float32]

MODEST: dict[str, Any] = {
    "brightness": 0.1,
    "contrast": (0.8, 1.25),
    "gamma": (0.7, 1.4),
    "blur": 1.0,
    "noise": 0.05,
    "low_resolution": 1.0,
    "jpeg": 1.0,
}
FOR_COLOURS: dict[str, Any] = {"stain": 0.3, "stain_hue": 0.05, "ground": 1.0, "made_up": 1.0}


def tissue(side: int = 48, channels: int = 3, contrast: float = 1.0) -> Image:
    """Return a smooth image with intensities around 0.55."""
    noise = np.random.default_rng(0).standard_normal((channels, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3))
    image: Image = (0.55 + contrast * 0.35 * smooth / np.abs(smooth).max()).astype(np.float32)
    return image


def coloured(image: Image, seed: int = 0, **chosen: Any) -> Image:
    objects = np.zeros(image.shape[1:], np.bool_)
    return colour(image, objects, Colouring(**chosen), np.random.default_rng(seed))


@given(st.sampled_from([1, 3]), st.integers(0, 50))
def test_without_settings_not_a_bit_changes(channels: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((channels, 9, 7), dtype=np.float32)
    assert (coloured(image, seed) == image).all()


@pytest.mark.parametrize(
    ("channels", "settings"),
    [(1, {name: value}) for name, value in MODEST.items()]
    + [(1, MODEST)]
    + [(3, {name: value}) for name, value in (MODEST | FOR_COLOURS).items()]
    + [(3, MODEST | FOR_COLOURS)],
)
def test_each_ingredient_gives_another_image_of_the_same_kind(
    channels: int, settings: dict[str, Any]
) -> None:
    image = tissue(channels=channels)[:, :, :41]
    before = image.copy()
    found = [coloured(image, seed, **settings) for seed in (0, 0, 1)]
    assert (image == before).all()
    for one in found:
        assert one.shape == image.shape
        assert one.dtype == np.float32
        assert one.min() >= 0
        assert one.max() <= 1
        assert not np.array_equal(one, image)
    assert (found[0] == found[1]).all()
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize("name", ["ground", "made_up", "blur", "low_resolution", "jpeg"])
def test_shares_are_how_often(name: str) -> None:
    image = tissue(16)
    changed = [(coloured(image, seed, **{name: 0.3}) != image).any() for seed in range(300)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.08)


def test_brightness_is_added() -> None:
    image = tissue()
    shifts = []
    for seed in range(200):
        difference = coloured(image, seed, brightness=0.08) - image
        assert np.ptp(difference) < 1e-6
        shifts.append(float(difference.mean()))
    assert -0.08 <= min(shifts) < -0.07
    assert 0.07 < max(shifts) <= 0.08


def test_contrast_is_a_factor_around_the_mean() -> None:
    image = tissue(contrast=0.5)
    deviation = image - image.mean()
    logs = []
    for seed in range(200):
        found = coloured(image, seed, contrast=(0.5, 2.0))
        factor = float((found - found.mean()).std() / deviation.std())
        np.testing.assert_allclose(found, image.mean() + factor * deviation, atol=1e-5)
        logs.append(math.log2(factor))
    assert min(logs) >= -1.0001
    assert max(logs) <= 1.0001
    np.testing.assert_allclose(np.quantile(logs, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.2)


def test_gamma_is_an_exponent() -> None:
    image = tissue()
    exponents = []
    for seed in range(100):
        exponent = np.log(coloured(image, seed, gamma=(0.5, 2.0))) / np.log(image)
        assert np.ptp(exponent) < 1e-4
        exponents.append(float(exponent.mean()))
    assert 0.499 < min(exponents) < 0.6
    assert 1.7 < max(exponents) < 2.001


def test_focus_adds_some_of_a_gaussians_difference() -> None:
    image = tissue(contrast=0.4)
    sigmas = np.arange(FOCUS[0], FOCUS[1] + 0.01, 0.05)
    differences = [
        ndimage.gaussian_filter(image, (0, sigma, sigma), mode="mirror", truncate=3) - image
        for sigma in sigmas
    ]
    strengths = []
    for seed in range(60):
        change = coloured(image, seed, blur=1.0) - image
        fits = [float((change * each).sum() / (each**2).sum()) for each in differences]
        left = [
            np.abs(change - fit * each).max() for fit, each in zip(fits, differences, strict=True)
        ]
        best = int(np.argmin(left))
        assert left[best] < 0.1 * np.abs(change).max() + 1e-5
        strengths.append(fits[best])
    assert STRENGTH[0] - 0.1 < min(strengths) < STRENGTH[0] + 0.1
    assert STRENGTH[1] - 0.1 < max(strengths) < STRENGTH[1] + 0.1


def test_noise_deviates_by_up_to_what_is_asked_for() -> None:
    image = tissue()
    changes = [coloured(image, seed, noise=0.05) - image for seed in range(200)]
    deviations = [float(change.std()) for change in changes]
    assert min(deviations) < 0.003
    assert 0.047 < max(deviations) < 0.051
    assert np.abs(np.mean(changes)) < 1e-4
    beside = [np.corrcoef(c[:, 1:].ravel(), c[:, :-1].ravel())[0, 1] for c in changes]
    assert np.abs(beside).max() < 0.06


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["blur", "low_resolution", "jpeg"])
def test_nothing_moves(name: str, channels: int) -> None:
    """A blob stays where it is, and about as bright."""
    rows, columns = np.ogrid[:48, :41]
    blob = np.exp(-((rows - 20.3) ** 2 + (columns - 22.6) ** 2) / 60) * 0.7
    image = np.repeat(blob[None], channels, axis=0).astype(np.float32)
    for seed in range(20):
        found = coloured(image, seed, **{name: 1.0})
        for plane in found:
            assert ndimage.center_of_mass(plane) == pytest.approx((20.3, 22.6), abs=0.25)
        assert np.abs(found - image).max() < 0.1
        assert found.sum() == pytest.approx(image.sum(), rel=0.03)


def test_a_lower_resolution_loses_what_is_fine() -> None:
    """What a plain decimation could show is kept, pixels' differences aren't."""
    fine = np.random.default_rng(0).random((3, 64, 64), dtype=np.float32)
    kept = [coloured(fine, seed, low_resolution=1.0).std() / fine.std() for seed in range(50)]
    assert max(kept) < 1.05
    assert min(kept) < 0.6
    smooth = tissue(64)
    for seed in range(20):
        assert np.abs(coloured(smooth, seed, low_resolution=1.0) - smooth).max() < 0.05
    assert COARSER == (1.0, 2.0)


def test_jpeg_is_8_bit_and_near() -> None:
    image = tissue()
    errors = []
    for seed in range(30):
        found = coloured(image, seed, jpeg=1.0)
        levels = found * np.float32(255)
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
        errors.append(float(np.abs(found - image).mean()))
    assert max(errors) < 0.06
    assert min(errors) < 0.5 * max(errors)


def test_the_dyes_are_scikit_images() -> None:
    np.testing.assert_allclose(DYES, rgb_from_hed)


def amounts(density: Image) -> NDArray[np.float64]:
    """Return the amounts of haematoxylin, eosin and DAB, (3, n)."""
    found: NDArray[np.float64] = hed_from_rgb.T @ density.reshape(3, -1).astype(float)
    return found


def test_stain_changes_the_amounts_of_dyes() -> None:
    density = density_of(tissue())
    before, logs = amounts(density), []
    for seed in range(100):
        after = amounts(restain(density, 0.4, 0.0, np.random.default_rng(seed)))
        factors = (after * before).sum(axis=1) / (before**2).sum(axis=1)
        np.testing.assert_allclose(after, factors[:, None] * before, atol=1e-5)
        logs.append(np.log(factors))
    assert np.abs(logs).max() < 0.4001
    assert np.std(logs, axis=0) == pytest.approx(np.full(3, 0.4 / math.sqrt(3)), rel=0.2)
    assert np.abs(np.corrcoef(np.transpose(logs)) - np.eye(3)).max() < 0.3


def test_hue_changes_the_dyes_and_keeps_their_strength() -> None:
    pure = (DYES[:, :, None] * np.array([0.5, 1.0, 2.0])).astype(np.float32)
    rng = np.random.default_rng(0)
    for dye, density in zip(DYES, pure, strict=True):
        found = np.stack([restain(density[:, None], 0.0, 0.02, rng)[:, 0] for _ in range(400)])
        colours = found / np.array([0.5, 1.0, 2.0])
        np.testing.assert_allclose(colours[..., 0], colours[..., 2], atol=1e-5)
        strength = np.linalg.norm(dye)
        assert np.linalg.norm(colours[..., 1], axis=1) == pytest.approx(
            np.full(400, strength), rel=1e-4
        )
        unit = dye / strength
        # What is left of a deviation at right angles to the dye, whose length is kept.
        sideways = 0.02 * np.sqrt(1 - unit**2)
        assert colours[..., 1].std(axis=0) == pytest.approx(sideways, rel=0.2, abs=5e-4)


def test_light_goes_toward_and_away_from_the_glass() -> None:
    density = density_of(tissue()) + np.array([0.3, 0.2, 0.1], np.float32)[:, None, None]
    ground = np.quantile(density.reshape(3, -1), 0.05, axis=1)
    taken = []
    for seed in range(200):
        change = relight(density, np.random.default_rng(seed)) - density
        assert np.ptp(change, axis=(1, 2)).max() < 1e-5
        taken.append(change[:, 0, 0] / ground)
    assert np.min(taken) > -1.15
    assert np.quantile(taken, 0.05) < -0.85
    assert np.max(taken) < 0.5
    assert np.max(taken) > 0
    assert np.corrcoef(np.transpose(taken))[0, 1] > 0.8


@given(st.integers(0, 1000))
def test_density_and_intensity_are_inverse(seed: int) -> None:
    image = np.random.default_rng(seed).uniform(1 / 255, 1, (3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(intensity_of(density_of(image)), image, rtol=1e-5)
    assert (intensity_of(density_of(np.zeros((3, 2, 2), np.float32))) > 0).all()

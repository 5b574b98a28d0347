from __future__ import annotations

import math

import numpy as np
import pytest

from wsi_unet.training.augmentation.stains import DYES
from wsi_unet.training.augmentation.synthetic import (
    clouds,
    dye,
    fibres,
    image_without_nuclei,
    keratin,
    lines,
    tissue_without_nuclei,
)

SHAPE = (64, 90)


@pytest.mark.parametrize("sigma", [0.7, 1.5, 2.0, 5.3, 12.0])
def test_clouds_are_smoothed_noise(sigma: float) -> None:
    """Of unit variance everywhere, and as alike at a distance d as exp(−d²/4σ²) tells."""
    rng = np.random.default_rng(0)
    drawn = np.stack([clouds(SHAPE, sigma, rng) for _ in range(500)])
    assert drawn.dtype == np.float32
    assert drawn.shape == (500, *SHAPE)
    spread = drawn.std(axis=0)
    assert spread[[0, -1]].mean() == pytest.approx(1, abs=0.12)
    assert spread.mean() == pytest.approx(1, abs=0.03)
    assert np.abs(drawn.mean(axis=0)).max() < 0.3
    for distance in (round(sigma), 2 * round(sigma)):
        expected = math.exp(-(distance**2) / (4 * sigma**2))
        down = (drawn[:, distance:] * drawn[:, :-distance]).mean()
        right = (drawn[..., distance:] * drawn[..., :-distance]).mean()
        assert [down, right] == pytest.approx([expected] * 2, abs=0.05)


@pytest.mark.parametrize(("along", "across"), [(9.0, 1.5), (3.0, 3.0), (40.0, 2.0)])
def test_fibres_have_unit_variance_and_a_direction(along: float, across: float) -> None:
    rng = np.random.default_rng(0)
    drawn = [fibres(SHAPE, along, across, rng) for _ in range(400)]
    assert drawn[0].dtype == np.float32
    assert np.std(drawn) == pytest.approx(1, abs=0.05)
    ratios = []
    for noise in drawn:
        slopes = np.stack(np.gradient(noise.astype(float))).reshape(2, -1)
        least, most = np.linalg.eigvalsh(slopes @ slopes.T)
        ratios.append(math.sqrt(most / least))
    expected = along / across
    assert np.median(ratios) == pytest.approx(expected, rel=0.3)


def test_lines_lie_where_a_field_crosses_a_level() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([lines(SHAPE, rng) for _ in range(50)])
    assert 0 <= drawn.min() < 0.01
    assert 0.99 < drawn.max() <= 1
    assert 0.01 < drawn.mean() < 0.3


def test_dyes_lie_between_pink_and_purple() -> None:
    rng = np.random.default_rng(0)
    purple = DYES[0] / np.linalg.norm(DYES[0])
    for least, most in ((0.0, 0.0), (0.2, 0.9), (1.0, 1.0)):
        colours = np.stack([dye(most, rng, least) for _ in range(50)])
        assert np.linalg.norm(colours, axis=1) == pytest.approx(np.ones(50))
        near = colours @ purple
        assert near.min() > 0.6
        assert (near == pytest.approx(np.ones(50))) == (least == 1)


@pytest.mark.parametrize("make", [tissue_without_nuclei, keratin])
def test_densities_take_light_away(make: object) -> None:
    assert callable(make)
    for seed in range(20):
        density = make(SHAPE, np.random.default_rng(seed))
        assert density.shape == (3, *SHAPE)
        assert density.dtype == np.float32
        assert np.isfinite(density).all()
        assert density.min() >= 0
        assert (density == make(SHAPE, np.random.default_rng(seed))).all()


@pytest.mark.parametrize("side", [16, 61, 140])
def test_ground_is_an_image_from_glass_to_dark_tissue(side: int) -> None:
    made = [image_without_nuclei(side, np.random.default_rng(seed)) for seed in range(30)]
    assert {image.shape for image in made} == {(3, side, side)}
    assert {image.dtype for image in made} == {np.dtype(np.float32)}
    assert min(image.min() for image in made) >= 0
    assert max(image.max() for image in made) <= 1
    even = [image for image in made if image.std() < 1e-6]
    assert 0 < len(even) < 15
    assert min(image.mean() for image in even) > 0.85
    assert min(image.mean() for image in made) < 0.6

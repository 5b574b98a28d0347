from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RectBivariateSpline

from wsi_unet.training.augmentation.geometric import Warp, interpolation
from wsi_unet.training.recipe_sections import Warping


@given(st.integers(0, 99))
def test_without_settings_nothing_changes(seed: int) -> None:
    warp = Warp.draw(Warping(), np.random.default_rng(seed))
    assert warp.is_straight
    assert (warp.shift, warp.scale) == ((0, 0), (1.0, 1.0))
    assert warp.view == Warp().view
    coordinates = warp.coordinates(6)
    assert coordinates.dtype == np.float32
    assert (coordinates == np.indices((6, 6)) - 2.5).all()


def test_all_flips_are_drawn_alike() -> None:
    rng = np.random.default_rng(0)
    views = [Warp.draw(Warping(flips=True), rng).view for _ in range(800)]
    counts = [views.count(view) for view in set(views)]
    assert len(counts) == 8
    assert min(counts) > 60


def test_shifts_are_whole_pixels_up_to_the_most() -> None:
    rng = np.random.default_rng(0)
    shifts = np.array([Warp.draw(Warping(shift=3.7), rng).shift for _ in range(400)])
    assert set(shifts[:, 0]) == set(shifts[:, 1]) == set(range(-3, 4))


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_coordinates_are_turned_and_displaced(seed: int, side: int) -> None:
    chosen = Warping(rotation=0.7, elastic=3.0)
    warp = Warp.draw(chosen, np.random.default_rng(seed))
    assert warp.displacements is not None
    spread = interpolation(3, side).astype(float)
    for y, x in [(0, 0), (side // 2, side - 1), (side - 1, side // 3)]:
        bent = [spread[y] @ warp.displacements[axis] @ spread[x] for axis in (0, 1)]
        # as complex numbers x + iy, which a turn by −angle from x to y multiplies
        position = complex(x + bent[1], y + bent[0]) - complex(1, 1) * (side - 1) / 2
        turned = position * complex(math.cos(warp.angle), -math.sin(warp.angle))
        found = warp.coordinates(side)[:, y, x]
        np.testing.assert_allclose(found, [turned.imag, turned.real], atol=1e-4)


@pytest.mark.parametrize(("points", "side"), [(2, 7), (3, 9), (3, 572), (5, 41), (9, 9)])
def test_interpolation_is_cubic(points: int, side: int) -> None:
    """It goes through its points, keeps constants everywhere, and parabolas away from the ends."""
    matrix = interpolation(points, side)
    assert matrix.shape == (side, points)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    position = np.linspace(0, points - 1, side)
    whole = position == np.rint(position)
    assert (matrix[whole] == np.eye(points)[position[whole].astype(int)]).all()
    inner = (position >= 1) & (position <= points - 2)
    parabola = (np.arange(points) - 1.3) ** 2
    np.testing.assert_allclose((matrix @ parabola)[inner], (position[inner] - 1.3) ** 2, atol=1e-4)


def test_interpolation_is_smooth() -> None:
    values = interpolation(4, 301) @ np.array([0.0, 1.0, -1.0, 2.0])
    slopes = np.diff(values)
    assert np.abs(np.diff(slopes)).max() < 0.05 * np.abs(slopes).max()


def test_displacements_deviate_by_what_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    warps = [Warp.draw(Warping(elastic=10.0), rng) for _ in range(600)]
    side = 41
    straight = Warp().coordinates(side)
    bent = np.stack([warp.coordinates(side) - straight for warp in warps])
    at_points = bent[:, :, :: side // 2, :: side // 2]
    assert at_points.shape[2:] == (3, 3)
    assert np.std(at_points, axis=0) == pytest.approx(np.full((2, 3, 3), 10), rel=0.12)
    assert np.std(at_points) == pytest.approx(10, rel=0.02)
    flat = at_points.reshape(600, 18)
    assert np.abs(np.corrcoef(flat.T) - np.eye(18)).max() < 0.2  # 4.9 deviations of chance
    assert np.abs(flat.mean()) < 0.5
    # Between its points an interpolated displacement varies less, by the length of the weights.
    expected = 10 * np.linalg.norm(interpolation(3, side), axis=1)
    found = bent.std(axis=(0, 1))
    np.testing.assert_allclose(found, expected[:, None] * expected / 10, rtol=0.12)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_shares_are_how_often(share: float) -> None:
    rng = np.random.default_rng(0)
    chosen = Warping(
        rotation=share, scale=(0.5, 2.0), scaled=share, elastic=4.0, elastic_share=share
    )
    warps = [Warp.draw(chosen, rng) for _ in range(1000)]
    near = pytest.approx(share, abs=0.05)
    assert np.mean([warp.angle != 0 for warp in warps]) == near
    assert np.mean([warp.scale != (1.0, 1.0) for warp in warps]) == near
    assert np.mean([warp.displacements is not None for warp in warps]) == near


def test_scales_and_aspects_are_drawn_on_a_logarithmic_scale() -> None:
    rng = np.random.default_rng(0)
    chosen = Warping(scale=(0.5, 3.0), squeeze=0.4)
    logs = np.log([Warp.draw(chosen, rng).scale for _ in range(4000)])
    sizes, aspects = -logs.mean(axis=1), logs[:, 1] - logs[:, 0]
    for values, least, most in ((sizes, math.log(0.5), math.log(3)), (aspects, -0.4, 0.4)):
        assert least <= values.min() < least + 0.01
        assert most - 0.01 < values.max() <= most
        quarters = np.quantile(values, [0.25, 0.5, 0.75])
        np.testing.assert_allclose(quarters, np.linspace(least, most, 5)[1:-1], atol=0.04)


def test_a_spline_bends_alike() -> None:
    """The displacements between the points are near those of a bicubic spline through them."""
    warp = Warp.draw(Warping(elastic=5.0, elastic_grid=6), np.random.default_rng(0))
    assert warp.displacements is not None
    bent = warp.coordinates(101) - Warp().coordinates(101)
    points, pixels = np.arange(6), np.linspace(0, 5, 101)
    for axis in (0, 1):
        spline = RectBivariateSpline(points, points, warp.displacements[axis])(pixels, pixels)
        inside = (slice(20, 81), slice(20, 81))
        assert np.abs(bent[axis] - spline)[inside].max() < 0.25 * np.abs(spline).max()
        assert np.corrcoef(bent[axis][inside].ravel(), spline[inside].ravel())[0, 1] > 0.98

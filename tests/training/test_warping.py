from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

from wsi_unet.training.recipe import Warping
from wsi_unet.training.samples.warping import (
    Warp,
    interpolation,
    middle,
    sample_image,
    sample_labels,
    sample_weights,
)

SIDES = st.sampled_from([1, 2, 16, 31, 64])
EVERYTHING = Warping(
    flips=True, rotation=0.7, shift=9.0, scale=(0.6, 1.8), squeeze=0.2, elastic=3.0
)


def piece(side: int, warp: Warp, extra: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Noise as large as the warp needs it, and the coordinates that the warp has on it."""
    coordinates = warp.coordinates(side)
    size = side + 2 * (warp.reach(coordinates) + extra)
    image = np.random.default_rng(3).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return image, coordinates


@given(SIDES, st.integers(0, 99))
def test_without_settings_nothing_changes(side: int, seed: int) -> None:
    warp = Warp.draw(Warping(), np.random.default_rng(seed))
    image, coordinates = piece(side, warp)
    assert image.shape == (side, side, 3)
    expected = np.indices((side, side)) - (side - 1) / 2
    assert coordinates.dtype == np.float32
    assert (coordinates == expected).all()
    sampled = sample_image(image, coordinates, warp.blur)
    assert sampled.dtype == np.float32
    assert (sampled == image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)).all()


def test_flips_are_the_eight_permutations_of_a_square() -> None:
    image = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    weights = image[..., 0].astype(np.float32)
    turned = [np.rot90(flipped, k) for flipped in (image, image[::-1]) for k in range(4)]
    seen = set()
    for seed in range(100):
        warp = Warp.draw(Warping(flips=True), np.random.default_rng(seed))
        coordinates = warp.coordinates(10)
        assert warp.reach(coordinates) == 0
        pixels = np.rint(sample_image(image, coordinates, warp.blur) * 255).transpose(1, 2, 0)
        found = [i for i, one in enumerate(turned) if (one == pixels).all()]
        assert len(found) == 1
        seen.add(found[0])
        assert (sample_labels(image[..., 0], coordinates) == turned[found[0]][..., 0]).all()
        assert (sample_weights(weights, coordinates) == turned[found[0]][..., 0]).all()
    assert seen == set(range(8))


def test_shifts_are_whole_pixels_up_to_the_most() -> None:
    rng = np.random.default_rng(0)
    shifts = np.array([Warp.draw(Warping(shift=3.7), rng).shift for _ in range(400)])
    assert set(shifts[:, 0]) == set(shifts[:, 1]) == set(range(-3, 4))
    image = np.arange(100, dtype=np.uint8).reshape(10, 10)
    warp = Warp(shift=(1, -2))
    coordinates = warp.coordinates(6)
    assert warp.reach(coordinates) == 2
    assert (sample_labels(image, coordinates) == image[3:9, 0:6]).all()


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_coordinates_are_matrix_and_displacements(seed: int, side: int) -> None:
    """Against scipy's affine transformation of coordinate images, and a spline through 3 points."""
    warp = Warp.draw(EVERYTHING, np.random.default_rng(seed))
    assert warp.displacements is not None
    assert np.allclose(np.array(warp.turn) @ np.array(warp.turn).T, np.eye(2))
    spread = interpolation(3, side).astype(float)
    for y, x in [(0, 0), (side // 2, side - 1), (side - 1, side // 3)]:
        bent = [spread[y] @ warp.displacements[axis] @ spread[x] for axis in (0, 1)]
        position = np.array([y, x]) - (side - 1) / 2 + bent
        expected = np.array(warp.shift) + np.diag(warp.scale) @ np.array(warp.turn) @ position
        np.testing.assert_allclose(warp.coordinates(side)[:, y, x], expected, atol=1e-4)


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
    assert np.mean([warp.turn != ((1.0, 0.0), (0.0, 1.0)) for warp in warps]) == near
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


@settings(max_examples=60)
@given(st.integers(0, 10_000), SIDES)
def test_the_reach_suffices(seed: int, side: int) -> None:
    warp = Warp.draw(EVERYTHING, np.random.default_rng(seed))
    large, coordinates = piece(side, warp, extra=25)
    needed = large[25:-25, 25:-25]
    expected = sample_image(large, coordinates, warp.blur)
    found = sample_image(needed, coordinates, warp.blur)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (
        sample_labels(needed[..., 0], coordinates) == sample_labels(large[..., 0], coordinates)
    ).all()


@given(st.integers(0, 10_000))
def test_the_reach_isnt_more_than_is_needed(seed: int) -> None:
    warp = Warp.draw(EVERYTHING, np.random.default_rng(seed))
    image, coordinates = piece(40, warp)
    margin = 3 + math.ceil(3 * max(warp.blur))
    farthest = np.abs(coordinates).max() - 19.5
    assert farthest <= warp.reach(coordinates) < farthest + margin
    with pytest.raises(ValueError, match="coordinates lie outside of an array of"):
        sample_image(image[margin:-margin, margin:-margin], coordinates, warp.blur)


def test_a_magnified_sample_reads_less_than_its_own_square() -> None:
    warp = Warp(scale=(0.5, 0.5))
    assert warp.blur == (0, 0)
    assert warp.reach(warp.coordinates(100)) == -25 + 2 + 1


def test_an_array_needs_not_be_square() -> None:
    warp = Warp(turn=((0.6, -0.8), (0.8, 0.6)))
    coordinates = warp.coordinates(11)
    image = np.random.default_rng(0).integers(0, 256, (41, 41, 3), dtype=np.uint8)
    narrow = image[4:-4]
    expected = sample_image(image, coordinates)
    np.testing.assert_allclose(sample_image(narrow, coordinates), expected, atol=1e-4)
    labels, weights = image[..., 0], image[..., 1].astype(np.float32)
    assert (sample_labels(labels[4:-4], coordinates) == sample_labels(labels, coordinates)).all()
    np.testing.assert_allclose(
        sample_weights(weights[4:-4], coordinates), sample_weights(weights, coordinates), atol=0.01
    )


def smooth_image(side: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(1).standard_normal((side, side, 3))
    smooth = ndimage.gaussian_filter(noise, (4, 4, 0), mode="reflect")
    image: NDArray[np.uint8] = np.rint(127 + 100 * smooth / np.abs(smooth).max()).astype(np.uint8)
    return image


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_sampling_is_that_of_scipy(seed: int) -> None:
    """Linear to rounding; cubic as a spline has it, to half a grey value on a smooth image."""
    warp = Warp.draw(EVERYTHING, np.random.default_rng(seed))
    coordinates = warp.coordinates(48)
    size = 48 + 2 * warp.reach(coordinates)
    image = smooth_image(size)
    positions = coordinates.astype(float) + (size - 1) / 2
    found = sample_image(image, coordinates)
    for channel in range(3):
        plane = image[..., channel].astype(np.float32)
        expected = ndimage.map_coordinates(plane, positions, order=3, mode="mirror") / 255
        np.testing.assert_allclose(found[channel], expected, atol=0.004)
        linear = ndimage.map_coordinates(plane, positions, order=1)
        np.testing.assert_allclose(sample_weights(plane, coordinates), linear, atol=0.02)


def test_cubic_sampling_is_keys_kernel() -> None:
    """Against the kernel's formula with a = −¾, pixel by pixel."""
    image = np.random.default_rng(0).integers(60, 200, (12, 12, 1), dtype=np.uint8)

    def tap(t: float) -> float:
        t, a = abs(t), -0.75
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    warp = Warp(turn=((0.6, -0.8), (0.8, 0.6)), scale=(0.9, 0.8))
    coordinates = warp.coordinates(5)
    found = sample_image(image, coordinates)[0]
    for i, j in np.ndindex(5, 5):
        y, x = coordinates[:, i, j] + 5.5
        expected = sum(
            tap(y - r) * tap(x - c) * int(image[r, c, 0]) for r in range(12) for c in range(12)
        )
        assert found[i, j] == pytest.approx(expected / 255, abs=1e-4)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_image_labels_and_weights_stay_together(seed: int) -> None:
    """An image that shows its labels, warped, shows the warped labels; away from their edges."""
    warp = Warp.draw(EVERYTHING, np.random.default_rng(seed))
    coordinates = warp.coordinates(80)
    inner = middle(coordinates, 52)
    size = 80 + 2 * warp.reach(coordinates)
    labels = (np.kron(np.indices((9, 9)).sum(0) % 2, np.ones((size // 9 + 1, size // 9 + 1))) > 0)[
        :size, :size
    ].astype(np.uint8)
    image = np.repeat(labels[..., None] * 255, 3, axis=2).astype(np.uint8)
    shown = sample_image(image, coordinates, warp.blur)[0, 14:66, 14:66]
    found, weights = sample_labels(labels, inner), sample_weights(labels.astype(np.float32), inner)
    sure = np.abs(shown - 0.5) > 0.25
    assert sure.mean() > 0.6
    assert ((shown > 0.5) == found)[sure].all()
    assert ((weights > 0.5) == found)[np.abs(weights - 0.5) > 0.01].all()


def test_shrinking_leaves_no_stripes() -> None:
    stripes = np.zeros((80, 80, 1), np.uint8)
    stripes[:, ::2] = 255
    warp = Warp(scale=(1.0, 2.2))
    coordinates = warp.coordinates(30)
    assert sample_image(stripes, coordinates).std() > 0.2
    assert sample_image(stripes, coordinates, warp.blur).std() < 0.02
    assert warp.blur == pytest.approx((0, math.sqrt(2.2**2 - 1) / 2))


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

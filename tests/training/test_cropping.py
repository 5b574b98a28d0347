"""Crops, against SciPy's interpolation of the whole field at separately computed coordinates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from wsi_unet.models.inference.augmentation import VIEWS
from wsi_unet.training.augmentation.cropping import Crop, middle
from wsi_unet.training.augmentation.geometric import Warp
from wsi_unet.training.recipe_sections import Warping

SIDES = st.sampled_from([1, 2, 16, 31, 64])
EVERYTHING = Warping(
    flips=True,
    rotation=0.5,
    shift=9.0,
    scale=(0.6, 1.8),
    squeeze=0.2,
    elastic=3.0,
    elastic_share=0.5,
)
CENTRE = (300, 290)


def source(smooth: float) -> NDArray[np.uint8]:
    """Return noise (600, 600, 3), smooth enough for every interpolation and reduction."""
    noise = np.random.default_rng(1).standard_normal((600, 600, 3))
    if smooth:
        noise = ndimage.gaussian_filter(noise, (smooth, smooth, 0))
    scaled = np.rint(127 + 100 * noise / np.abs(noise).max())
    image: NDArray[np.uint8] = scaled.astype(np.uint8)
    return image


SMOOTH, ROUGH = source(6.0), source(0.0)


def positions(warp: Warp, crop: Crop) -> NDArray[np.float64]:
    """Return where in the source each pixel of the sample is from before it is flipped."""
    scale = np.array(crop.window) / crop.resized
    centre = np.array(CENTRE) - (0.0 if crop.side % 2 else 0.5) + np.array(warp.shift)
    found: NDArray[np.float64] = centre[:, None, None] + scale[:, None, None] * warp.coordinates(
        crop.side
    ).astype(float)
    return found


def flipped(planes: NDArray[np.float64], crop: Crop) -> NDArray[np.float64]:
    flips = (crop.view.rows, crop.view.columns)
    rows, columns = (slice(None, None, -1 if flip else 1) for flip in flips)
    planes = planes[..., rows, columns]
    return planes.swapaxes(-1, -2) if crop.view.transposed else planes


@given(SIDES, st.integers(0, 99))
def test_without_settings_a_sample_is_what_lies_there(side: int, seed: int) -> None:
    crop = Crop.from_warp(Warp.draw(Warping(), np.random.default_rng(seed)), side)
    window = crop.around(*CENTRE)
    assert window.shape == (side, side)
    piece = ROUGH[window.slices()]
    image = crop.image(piece)
    assert image.dtype == np.float32
    assert (image == piece.transpose(2, 0, 1).astype(np.float32) / np.float32(255)).all()
    assert (crop.labels(piece[..., 0]) == piece[..., 0]).all()
    assert (crop.weights(image[0]) == image[0]).all()


def test_flips_are_the_eight_permutations_of_a_square() -> None:
    image = ROUGH[:10, :10]
    turned = [np.rot90(one, k) for one in (image, image[::-1]) for k in range(4)]
    seen = set()
    for view in VIEWS["d4"]:
        crop = Crop.from_warp(Warp(view=view), 10)
        pixels = np.rint(crop.image(image) * 255).transpose(1, 2, 0)
        (found,) = [i for i, one in enumerate(turned) if (one == pixels).all()]
        seen.add(found)
        assert (crop.labels(image[..., 0]) == turned[found][..., 0]).all()
        weights = crop.weights(image[..., 0].astype(np.float32))
        assert (weights == turned[found][..., 0]).all()
    assert seen == set(range(8))


def test_shifts_move_the_window() -> None:
    window = Crop.from_warp(Warp(shift=(1, -2)), 6).around(50, 70)
    assert (window.y0, window.x0, window.shape) == (48, 65, (6, 6))


@settings(max_examples=80)
@given(st.integers(0, 10_000), SIDES)
def test_labels_and_weights_are_interpolated_once(seed: int, side: int) -> None:
    warp = Warp.draw(EVERYTHING, np.random.default_rng(seed))
    crop = Crop.from_warp(warp, side)
    where, window = positions(warp, crop), crop.around(*CENTRE)
    values = ROUGH[..., 0]
    expected = flipped(ndimage.map_coordinates(values.astype(float), where, order=1), crop)
    found = crop.weights(values[window.slices()].astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=0.02)
    nearest = flipped(ndimage.map_coordinates(values.astype(float), where, order=0), crop)
    sure = flipped((np.abs(where % 1 - 0.5) > 1e-3).all(axis=0).astype(float), crop) > 0
    labels = crop.labels(values[window.slices()])
    assert labels.dtype == np.uint8
    assert (labels == nearest)[sure].all()


@settings(max_examples=60)
@given(st.integers(0, 10_000), SIDES)
def test_images_are_the_sources_at_the_same_places(seed: int, side: int) -> None:
    """As a spline has it, to rounding: what is smooth, no filter changes much."""
    warp = Warp.draw(EVERYTHING, np.random.default_rng(seed))
    crop = Crop.from_warp(warp, side)
    where = positions(warp, crop)
    found = crop.image(SMOOTH[crop.around(*CENTRE).slices()])
    assert found.shape == (3, side, side)
    for channel in range(3):
        plane = SMOOTH[..., channel].astype(float)
        expected = flipped(ndimage.map_coordinates(plane, where, order=3), crop)
        difference = np.abs(found[channel] * 255 - expected)
        assert difference.max() < 2.5
        assert side < 16 or difference.mean() < 0.6  # a tenth of a pixel beside would be more


@settings(max_examples=25)
@given(st.integers(0, 10_000), SIDES)
def test_what_isnt_scaled_is_the_source_as_a_spline_has_it(seed: int, side: int) -> None:
    chosen = Warping(flips=True, rotation=0.7, shift=9.0, elastic=3.0)
    warp = Warp.draw(chosen, np.random.default_rng(seed))
    crop = Crop.from_warp(warp, side)
    found = crop.image(SMOOTH[crop.around(*CENTRE).slices()])
    for channel in range(3):
        plane = SMOOTH[..., channel].astype(float)
        expected = flipped(ndimage.map_coordinates(plane, positions(warp, crop), order=3), crop)
        np.testing.assert_allclose(found[channel], expected / 255, atol=0.004)


@settings(max_examples=60)
@given(st.integers(0, 10_000), SIDES)
def test_the_scale_is_the_nearest_of_whole_windows(seed: int, side: int) -> None:
    warp = Warp.draw(EVERYTHING, np.random.default_rng(seed))
    crop = Crop.from_warp(warp, side)
    for length, scale in zip(crop.window, warp.scale, strict=True):
        assert length > 0
        assert length % 2 == side % 2
        assert abs(length - scale * crop.resized) <= 1 + 1e-9


@settings(max_examples=60)
@given(st.integers(0, 10_000), SIDES)
def test_the_window_is_no_larger_than_needed(seed: int, side: int) -> None:
    warp = Warp.draw(EVERYTHING, np.random.default_rng(seed))
    crop = Crop.from_warp(warp, side)
    needed = 2 * np.abs(warp.coordinates(side)).max() + 1
    assert needed <= crop.resized <= needed + 2 * (2 + 1 + 4 + 1)
    if crop.grid is not None:
        assert float(crop.grid.abs().max()) < 1


@pytest.mark.parametrize(("numerator", "denominator"), [(2, 1), (3, 1), (1, 2), (3, 2)])
def test_the_margin_has_all_that_resizing_looks_at(numerator: int, denominator: int) -> None:
    """With more around it, the same sample."""
    scale = numerator / denominator
    crop = Crop.from_warp(Warp(scale=(scale, scale)), 24)
    assert crop.window == (crop.resized * scale,) * 2
    resized = crop.resized + 24
    larger = replace(crop, resized=resized, window=(int(resized * scale),) * 2)
    small, large = (one.image(ROUGH[one.around(*CENTRE).slices()]) for one in (crop, larger))
    assert np.abs(small - large).max() * 255 < 1.01
    assert (np.rint(small * 255) != np.rint(large * 255)).mean() < 0.01
    assert large.std() > 0.02


def test_shrinking_leaves_no_stripes() -> None:
    stripes = np.zeros((90, 90, 3), np.uint8)
    stripes[:, ::2] = 255
    for factor, deviation in ((1.0, 0.49), (2.2, 0.02), (3.0, 0.02)):
        crop = Crop.from_warp(Warp(scale=(1.0, factor)), 20)
        rows, columns = crop.window
        found = crop.image(np.ascontiguousarray(stripes[:rows, :columns])).std()
        assert found > deviation if factor == 1 else found < deviation


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_image_labels_and_weights_stay_together(seed: int) -> None:
    """An image that shows its labels, warped, shows the warped labels; away from their edges."""
    crop = Crop.from_warp(Warp.draw(EVERYTHING, np.random.default_rng(seed)), 80)
    window = crop.around(*CENTRE)
    board = np.kron(np.indices((30, 30)).sum(0) % 2, np.ones((20, 20))).astype(np.uint8)
    labels = np.ascontiguousarray(board[window.slices()])
    image = np.repeat(labels[..., None] * np.uint8(255), 3, axis=2)
    shown, found, weights = (
        middle(one, 52)
        for one in (
            crop.image(image)[0],
            crop.labels(labels).astype(np.float32),
            crop.weights(labels.astype(np.float32)),
        )
    )
    sure = np.abs(shown - 0.5) > 0.25
    assert sure.mean() > 0.6
    assert ((shown > 0.5) == found)[sure].all()
    assert ((weights > 0.5) == found)[np.abs(weights - 0.5) > 0.01].all()

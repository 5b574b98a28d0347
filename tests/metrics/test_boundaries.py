from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from wsi_unet.geometry import Box
from wsi_unet.metrics import boundaries
from wsi_unet.metrics.boundaries import (
    BoundaryPixels,
    boundary_halo,
    count_boundaries,
    dilate,
    merge_boundaries,
)

SHAPE = (11, 13)
LABELS = arrays(np.uint8, SHAPE, elements=st.integers(0, 2))
BLOCKS = arrays(np.uint8, (3, 3), elements=st.integers(0, 2)).map(
    lambda small: small.repeat(4, 0).repeat(5, 1)[:11, :13]
)
VALID = arrays(np.bool_, SHAPE, elements=st.sampled_from([True, True, True, False]))
TOLERANCE = st.sampled_from([0.0, 0.9, 1.0, 1.5, 2.0, 3.0, 30.0])


def brute_boundary(labels: np.ndarray, valid: np.ndarray, value: int) -> list[tuple[int, int]]:
    found = []
    for y, x in np.argwhere(labels == value).tolist():
        beside = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        inside = [(i, j) for i, j in beside if 0 <= i < SHAPE[0] and 0 <= j < SHAPE[1]]
        if valid[y, x] and any(valid[p] and labels[p] != value for p in inside):
            found.append((y, x))
    return found


def brute_counts(
    truth: np.ndarray, prediction: np.ndarray, valid: np.ndarray, value: int, tolerance: float
) -> BoundaryPixels:
    one, two = (brute_boundary(labels, valid, value) for labels in (truth, prediction))
    met = [
        sum(any(math.dist(p, q) <= tolerance for q in others) for p in these)
        for these, others in ((one, two), (two, one))
    ]
    return BoundaryPixels(len(one), met[0], len(two), met[1])


@settings(max_examples=40)
@given(st.one_of(LABELS, BLOCKS), st.one_of(LABELS, BLOCKS), VALID, TOLERANCE)
def test_counts_are_those_of_every_pair_of_pixels(
    truth: np.ndarray, prediction: np.ndarray, valid: np.ndarray, tolerance: float
) -> None:
    found = count_boundaries(truth, prediction, valid, Box.from_shape(SHAPE), tolerance)
    for value in range(3):
        expected = brute_counts(truth, prediction, valid, value, tolerance)
        assert found.get(value, BoundaryPixels()) == expected


@settings(max_examples=60)
@given(BLOCKS, BLOCKS, VALID, TOLERANCE, st.integers(1, 12))
def test_chunks_add_up(
    truth: np.ndarray, prediction: np.ndarray, valid: np.ndarray, tolerance: float, side: int
) -> None:
    whole = Box.from_shape(SHAPE)
    parts = []
    for core in whole.tiles(side):
        halo = boundary_halo(tolerance)
        window = core.grow(halo, halo).intersection(whole)
        part = window.slices()
        inside = core.relative_to(window)
        parts.append(
            count_boundaries(truth[part], prediction[part], valid[part], inside, tolerance)
        )
    assert merge_boundaries(parts) == count_boundaries(truth, prediction, valid, whole, tolerance)


@settings(max_examples=60)
@given(arrays(np.bool_, SHAPE, elements=st.sampled_from([False] * 9 + [True])), TOLERANCE)
def test_dilating_is_the_distance_transform_cut_off(mask: np.ndarray, distance: float) -> None:
    expected = ndimage.distance_transform_edt(~mask) <= distance if mask.any() else mask
    assert (dilate(mask, distance) == expected).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundaries, "MAX_SHIFTED", math.inf)
        assert (dilate(mask, distance) == expected).all()


def test_a_boundary_within_the_tolerance_is_as_good_as_right() -> None:
    truth, prediction = np.zeros((40, 40), int), np.zeros((40, 40), int)
    truth[10:30, 10:30] = 1
    prediction[12:32, 10:30] = 1
    every = np.ones((40, 40), bool)
    core = Box(0, 0, 40, 40)
    assert count_boundaries(truth, prediction, every, core, 2)[1].f1 == 1
    strict = count_boundaries(truth, prediction, every, core, 0)[1]
    assert strict.truth == strict.prediction == 4 * 19
    assert strict.f1 == pytest.approx(36 / 76)  # the two sides, where both have 18 rows


def test_f1_of_nothing_isnt_a_number_and_of_one_side_is_zero() -> None:
    assert math.isnan(BoundaryPixels().f1)
    assert BoundaryPixels(truth=5).f1 == 0
    assert BoundaryPixels(prediction=5).f1 == 0
    assert BoundaryPixels(5, 0, 5, 0).f1 == 0

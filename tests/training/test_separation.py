from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from wsi_unet.geometry import Box
from wsi_unet.training.targets.separation import (
    STRIP,
    find_boundaries,
    gap_halo,
    separate_touching,
    separation_halo,
    separation_weights,
)

SHAPE = (23, 31)
SPECKS = arrays(np.int32, SHAPE, elements=st.sampled_from([0] * 40 + [1, 2, 3, 4]))
FLATS = arrays(np.int32, (6, 8), elements=st.sampled_from([0, 0, 1, 2, 3, 4])).map(
    lambda small: small.repeat(4, 0).repeat(4, 1)[: SHAPE[0], : SHAPE[1]].copy()
)
MAPS = st.one_of(SPECKS, FLATS)
CROWDS = arrays(np.int32, SHAPE, elements=st.sampled_from([0, 0, 0, 1, 2, 3, 4]))
SIGMAS = st.sampled_from([0.2, 1.0, 1.3, 2.5, 5.0])


def brute_weights(instances: NDArray[Any], w0: float, sigma: float) -> NDArray[np.float64]:
    numbers = [number for number in np.unique(instances) if number]
    if len(numbers) < 2:
        return np.zeros(instances.shape)
    each = [ndimage.distance_transform_edt(instances != number) for number in numbers]
    d1, d2 = np.sort(each, axis=0)[:2]
    term: NDArray[np.float64] = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    term[(d1 + d2 > 4.4 * sigma) | (instances > 0)] = 0
    return term


def nuclei(rows: int, columns: int, count: int) -> NDArray[np.int32]:
    """Return discs of 5 to 9 px radius, later ones over earlier ones."""
    rng = np.random.default_rng(0)
    instances = np.zeros((rows, columns), np.int32)
    for number, (y, x) in enumerate(rng.integers(0, (rows, columns), (count, 2)).tolist(), 1):
        radius = int(rng.integers(5, 10))
        y0, x0 = max(0, y - radius), max(0, x - radius)
        part = instances[y0 : y + radius + 1, x0 : x + radius + 1]
        dy, dx = np.ogrid[y0 - y : y0 - y + part.shape[0], x0 - x : x0 - x + part.shape[1]]
        part[dy**2 + dx**2 <= radius**2] = number
    return instances


@settings(max_examples=60)
@given(MAPS, SIGMAS)
def test_weights_are_those_of_a_distance_transform_per_object(
    instances: NDArray[np.int32], sigma: float
) -> None:
    found = separation_weights(instances, 10.0, sigma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, brute_weights(instances, 10.0, sigma), rtol=1e-6, atol=0)


def test_weights_of_a_map_of_several_components() -> None:
    instances = nuclei(STRIP[0] + 30, STRIP[1] + 50, 60)
    expected = brute_weights(instances, 10.0, 5.0)
    assert expected.max() > 8
    np.testing.assert_allclose(
        separation_weights(instances, 10.0, 5.0), expected, rtol=1e-6, atol=0
    )


@settings(max_examples=60)
@given(MAPS, SIGMAS, st.integers(1, 20))
def test_blocks_with_their_halo_give_the_weights_of_the_whole(
    instances: NDArray[np.int32], sigma: float, side: int
) -> None:
    whole = Box.from_shape(SHAPE)
    expected = separation_weights(instances, 7.0, sigma)
    for core in whole.tiles(side):
        window = core.grow(separation_halo(sigma), separation_halo(sigma)).intersection(whole)
        found = separation_weights(instances[window.slices()], 7.0, sigma, core.relative_to(window))
        assert (found == expected[core.slices()]).all()


@settings(max_examples=30)
@given(MAPS, st.permutations([1, 2, 3, 4]), st.sampled_from([1, 1000, 2**33, 2**60]))
def test_numbers_mean_nothing(instances: NDArray[np.int32], order: list[int], factor: int) -> None:
    renumbered = np.array([0, *order], np.int64)[instances] * factor
    weights = separation_weights(instances, 10.0, 2.0)
    assert (weights == separation_weights(renumbered, 10.0, 2.0)).all()
    assert (weights == separation_weights(instances.astype(np.uint8), 10.0, 2.0)).all()
    separated = separate_touching(instances, 2)
    assert ((separate_touching(renumbered, 2) > 0) == (separated > 0)).all()


def test_two_objects_by_hand() -> None:
    instances = np.zeros((1, 30), np.int32)
    instances[0, 0], instances[0, 3] = 1, 2
    weights = separation_weights(instances, 10.0, 5.0)
    between, beyond = 10 * math.exp(-9 / 50), 10 * math.exp(-25 / 50)
    assert weights[0, :5].tolist() == pytest.approx([0, between, between, 0, beyond])
    assert weights[0, 12] > 0  # 9 + 12 px
    assert (weights[0, 13:] == 0).all()  # 10 + 13 px


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_between_fewer_than_two_objects(count: int) -> None:
    instances = np.zeros((40, 50), np.uint16)
    instances[10:20, 10:20] = count
    assert not separation_weights(instances, 10.0, 5.0).any()


def test_a_box_may_be_empty() -> None:
    instances = np.ones((5, 5), np.uint16)
    assert separation_weights(instances, 10.0, 5.0, Box(2, 2, 2, 4)).shape == (0, 2)


def chebyshev(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the distance of every pixel to the mask."""
    distance: NDArray[Any] = ndimage.distance_transform_cdt(~mask, "chessboard")
    return distance


@settings(max_examples=60)
@given(MAPS | CROWDS, st.integers(1, 9))
def test_objects_are_separated_and_lose_only_what_is_near(
    instances: NDArray[np.int32], px: int
) -> None:
    separated = separate_touching(instances, px)
    assert ((separated == instances) | (separated == 0)).all()
    for number in np.unique(instances[instances > 0]):
        rest = (separated > 0) & (separated != number)
        if rest.any():
            assert (chebyshev(rest)[separated == number] > px).all()
        others = (instances > 0) & (instances != number)
        lost = (instances == number) & (separated == 0)
        if lost.any():
            assert chebyshev(others)[lost].max() <= px


@settings(max_examples=40)
@given(MAPS | CROWDS, st.integers(1, 5), st.integers(1, 20))
def test_blocks_with_their_halo_are_separated_as_the_whole(
    instances: NDArray[np.int32], px: int, side: int
) -> None:
    whole = Box.from_shape(SHAPE)
    expected = separate_touching(instances, px)
    for core in whole.tiles(side):
        window = core.grow(gap_halo(px), gap_halo(px)).intersection(whole)
        separated = separate_touching(instances[window.slices()], px)
        assert (separated[core.relative_to(window).slices()] == expected[core.slices()]).all()


@pytest.mark.parametrize("px", [1, 2, 3, 4])
def test_the_halo_suffices_in_a_crowd(px: int) -> None:
    """Separating two objects depends on separating others; a halo below twice the gap fails."""
    rng, whole, short = np.random.default_rng(px), Box(0, 0, 60, 60), 0
    for crowding in (0.1, 0.3, 0.7) * 2:
        instances = (rng.random((60, 60)) < crowding) * rng.integers(1, 5, (60, 60))
        expected = separate_touching(instances, px)
        for core in whole.tiles(5):
            for halo_px in (gap_halo(px), 2 * px - 1):
                window = core.grow(halo_px, halo_px).intersection(whole)
                separated = separate_touching(instances[window.slices()], px)
                inside = separated[core.relative_to(window).slices()]
                same = bool((inside == expected[core.slices()]).all())
                assert same or halo_px < gap_halo(px)
                short += not same
    assert short > 0


@pytest.mark.parametrize("px", range(1, 10))
def test_a_straight_seam_is_as_wide_as_wanted_and_in_the_middle(px: int) -> None:
    instances = np.repeat([[1] * 20 + [2] * 20], 30, axis=0)
    separated = separate_touching(instances, px)
    gone = np.flatnonzero(separated[15] == 0)
    first = 20 - px // 2
    assert gone.tolist() == list(range(first, first + px))
    assert (separated == separated[15]).all()


def test_objects_that_are_far_apart_stay_as_they_are() -> None:
    instances = np.zeros((20, 20), np.uint16)
    instances[2:8, 2:8], instances[2:8, 11:18] = 65535, 9
    assert (separate_touching(instances, 3) == instances).all()
    assert (separate_touching(instances, 0) == instances).all()


def test_diagonal_neighbours_touch() -> None:
    assert separate_touching(np.array([[1, 0], [0, 2]]), 1).tolist() == [[1, 0], [0, 0]]


def brute_boundaries(instances: NDArray[Any], reach: int, rim: int) -> NDArray[np.bool_]:
    found = np.zeros(instances.shape, np.bool_)
    for y, x in np.ndindex(*instances.shape):

        def near(far: int, y: int = y, x: int = x) -> set[int]:
            return {*instances[max(0, y - far) : y + far + 1, max(0, x - far) : x + far + 1].flat}

        between = reach > 0 and len(near(reach) - {0}) > 1
        along = rim > 0 and instances[y, x] > 0 and len(near(rim)) > 1
        found[y, x] = between or along
    return found


@settings(max_examples=30)
@given(MAPS, st.sampled_from([(1, 0), (2, 0), (0, 1), (0, 2), (1, 1), (3, 1), (1, 2)]))
def test_boundaries_are_as_defined(instances: NDArray[Any], widths: tuple[int, int]) -> None:
    found = find_boundaries(instances, *widths)
    assert (found == brute_boundaries(instances, *widths)).all()


@settings(max_examples=30)
@given(MAPS, st.sampled_from([(1, 0), (0, 2), (3, 1)]), st.integers(0, 10), st.integers(0, 12))
def test_a_box_with_its_halo_has_the_boundaries_of_the_whole(
    instances: NDArray[Any], widths: tuple[int, int], y: int, x: int
) -> None:
    box = Box(y, x, y + 9, x + 14)
    grown = box.grow(max(widths), max(widths)).intersection(Box.from_shape(SHAPE))
    found = find_boundaries(instances[grown.slices()], *widths)[box.relative_to(grown).slices()]
    assert (found == find_boundaries(instances, *widths)[box.slices()]).all()

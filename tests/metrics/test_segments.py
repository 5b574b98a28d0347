from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import adapted_rand_error, variation_of_information

from wsi_unet.metrics.overlaps import count_overlaps
from wsi_unet.metrics.segments import (
    SegmentScores,
    label_segments,
    score_segments,
    thin_membranes,
)

SEGMENTS = arrays(np.int32, (9, 11), elements=st.integers(0, 4))
BLOBS = arrays(np.int32, (3, 4), elements=st.integers(0, 4)).map(
    lambda small: small.repeat(3, 0).repeat(3, 1)[:, :11]
)


def scored(truth: np.ndarray, prediction: np.ndarray) -> SegmentScores:
    return score_segments(count_overlaps(truth, prediction))


def with_lonely_pixels(segments: np.ndarray) -> np.ndarray:
    """Give every border pixel a number of its own, as the challenge does."""
    alone = np.arange(segments.size, dtype=np.int64).reshape(segments.shape) + 1000
    return np.where(segments == 0, alone, segments)


@settings(max_examples=80)
@given(st.one_of(SEGMENTS, BLOBS), st.one_of(SEGMENTS, BLOBS))
def test_rand_error_is_scikit_images(truth: np.ndarray, prediction: np.ndarray) -> None:
    found = scored(truth, prediction)
    lonely = with_lonely_pixels(prediction)
    if not agreeing_pairs(truth, truth) or not agreeing_pairs(truth, lonely):
        return  # scikit-image divides by zero
    error, _, _ = adapted_rand_error(  # type: ignore[no-untyped-call]
        truth, lonely, ignore_labels=(0,)
    )
    assert found.rand_error == pytest.approx(1 if math.isnan(error) else error, abs=1e-9)


def agreeing_pairs(truth: np.ndarray, labels: np.ndarray) -> int:
    """Return how many pairs of pixels in the truth's segments have one label."""
    counts = np.unique(labels[truth > 0], return_counts=True)[1]
    return int((counts * (counts - 1)).sum())


@settings(max_examples=80)
@given(st.one_of(SEGMENTS, BLOBS), st.one_of(SEGMENTS, BLOBS))
def test_v_rand_is_the_share_of_pairs_that_agree(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Against every ordered pair of pixels, a pixel with itself included."""
    kept = truth > 0
    if not kept.any():
        return
    one, two = truth[kept], with_lonely_pixels(prediction)[kept]
    same_one, same_two = one[:, None] == one, two[:, None] == two
    found = scored(truth, prediction)
    agree = (same_one & same_two).sum()
    assert found.v_rand_split == pytest.approx(agree / same_one.sum())
    assert found.v_rand_merge == pytest.approx(agree / same_two.sum())
    harmonic = 2 / (1 / found.v_rand_split + 1 / found.v_rand_merge)
    assert found.v_rand == pytest.approx(harmonic)


@settings(max_examples=80)
@given(st.one_of(SEGMENTS, BLOBS), st.one_of(SEGMENTS, BLOBS))
def test_v_info_follows_from_scikit_images_variation_of_information(
    truth: np.ndarray, prediction: np.ndarray
) -> None:
    kept = truth > 0
    if not kept.any():
        return
    found = scored(truth, prediction)
    lonely = with_lonely_pixels(prediction)
    missed, surplus = variation_of_information(  # type: ignore[no-untyped-call]
        truth[kept], lonely[kept]
    )  # H(S|T), H(T|S) in bits

    def entropy(labels: np.ndarray) -> float:
        shares = np.unique(labels, return_counts=True)[1] / labels.size
        return float(-(shares * np.log2(shares)).sum())

    of_truth, of_prediction = entropy(truth[kept]), entropy(lonely[kept])
    mutual = of_truth - surplus
    assert mutual == pytest.approx(of_prediction - missed, abs=1e-9)
    for score, whole in (
        (found.v_info, (of_truth + of_prediction) / 2),
        (found.v_info_split, of_prediction),
        (found.v_info_merge, of_truth),
    ):
        if whole > 1e-9:
            assert score == pytest.approx(mutual / whole, abs=1e-9)


def test_splitting_and_merging_are_distinguished() -> None:
    truth = np.repeat([[1] * 10 + [2] * 10], 10, axis=0)
    merged = scored(truth, np.ones_like(truth))
    assert (merged.v_rand_split, merged.v_rand_merge) == (1, 0.5)
    assert merged.v_rand == pytest.approx(2 / 3)
    assert (merged.v_info, merged.v_info_merge) == (0, 0)
    split = scored(np.ones_like(truth), truth)
    assert (split.v_rand_split, split.v_rand_merge) == (0.5, 1)
    same = scored(truth, 7 * truth)
    assert (same.v_rand, same.rand_error) == (1, 0)
    assert same.v_info == pytest.approx(1)


def test_membranes_of_the_truth_arent_looked_at() -> None:
    truth = np.array([1, 1, 0, 0, 2, 2])
    for between in ([1, 2], [0, 0], [7, 8]):
        prediction = np.array([1, 1, *between, 2, 2])
        assert scored(truth, prediction).v_rand == 1


def test_scores_of_nothing_and_of_one_segment() -> None:
    nothing = scored(np.zeros(5, int), np.ones(5, int))
    assert all(math.isnan(value) for value in vars(nothing).values())
    whole = scored(np.ones(5, int), np.ones(5, int))
    assert set(vars(whole).values()) - {0.0} == {1.0}
    assert whole.rand_error == 0
    lonely = scored(np.ones(5, int), np.zeros(5, int))
    assert lonely.v_rand_merge == 1
    assert lonely.v_rand_split == pytest.approx(1 / 5)
    assert lonely.v_info == 0


def test_counts_as_large_as_a_slides_dont_overflow() -> None:
    whole = count_overlaps(np.array([1]), np.array([1]))
    vast = type(whole)(whole.truth, whole.prediction, np.array([10**11]))
    assert score_segments(vast).v_rand == 1


def test_segments_touch_at_sides_not_at_corners() -> None:
    values = np.array([[9, 0, 9], [9, 0, 0], [0, 9, 9]])
    parts = label_segments(values)
    assert len(np.unique(parts[parts > 0])) == 3
    assert (label_segments(np.array([[3, 3, 5]])) > 0).all()
    assert label_segments(np.array([[3, 3, 5]])).max() == 2


def test_borders_become_one_pixel_wide_where_they_were_wide() -> None:
    wide = np.ones((40, 41), np.int32)
    wide[:, 15:26] = 0
    wide[:, 26:] = 2
    thin = thin_membranes(wide)
    assert {*np.unique(thin)} == {0, 1, 2}
    assert ((thin == 0).sum(axis=1) == 1).all()
    assert (np.abs(np.argmin(thin, axis=1) - 20) <= 1).all()
    assert (thin[wide > 0] == wide[wide > 0]).all()


def test_how_wide_a_border_was_drawn_hardly_matters_after_thinning() -> None:
    random = np.random.default_rng(0)
    from scipy import ndimage
    from skimage.segmentation import find_boundaries, watershed

    seeds = np.zeros((120, 120), np.int32)
    places = random.integers(0, 120, (25, 2))
    seeds[places[:, 0], places[:, 1]] = np.arange(1, 26)
    cells = watershed(ndimage.distance_transform_edt(seeds == 0), seeds)  # type: ignore[no-untyped-call]
    borders = find_boundaries(cells)  # type: ignore[no-untyped-call]
    truth = label_segments(~borders)
    wide = label_segments(~ndimage.binary_dilation(borders, iterations=2))
    raw = scored(truth, wide)
    thinned = scored(thin_membranes(truth), thin_membranes(wide))
    assert raw.v_rand < 0.8
    assert thinned.v_rand > 0.97
    assert thinned.v_info > 0.95


def test_nothing_but_border_stays() -> None:
    assert not thin_membranes(np.zeros((5, 5), np.int32)).any()

from __future__ import annotations

import math
import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_unet.metrics.instances import ObjectScores, score_objects
from wsi_unet.metrics.overlaps import count_overlaps

OBJECTS = arrays(np.uint8, (6, 8), elements=st.integers(0, 5))
BLOBS = arrays(np.uint8, (3, 2), elements=st.integers(0, 5)).map(
    lambda small: small.repeat(2, 0).repeat(4, 1)
)


def scored(truth: np.ndarray, prediction: np.ndarray) -> ObjectScores:
    return score_objects(count_overlaps(truth, prediction))


def pixels_of(labels: np.ndarray) -> dict[int, set[int]]:
    return {v: {*np.flatnonzero(labels == v).tolist()} for v in np.unique(labels).tolist() if v}


def brute(truth: np.ndarray, prediction: np.ndarray) -> tuple[int, float, float]:
    """Return number of matches, PQ and AJI, object by object."""
    ones, twos = pixels_of(truth), pixels_of(prediction)
    iou = {(i, j): len(ones[i] & twos[j]) / len(ones[i] | twos[j]) for i, j in product(ones, twos)}
    matches = [value for value in iou.values() if value > 0.5]
    halves = (len(ones) + len(twos) - 2 * len(matches)) / 2
    pq = sum(matches) / (len(matches) + halves) if ones or twos else math.nan
    shared = union = 0
    taken = set()
    for i, pixels in ones.items():
        best = max(twos, key=lambda j: (iou[i, j], -j), default=None)
        if best is None or not iou[i, best]:
            union += len(pixels)
            continue
        shared += len(pixels & twos[best])
        union += len(pixels | twos[best])
        taken.add(best)
    union += sum(len(pixels) for j, pixels in twos.items() if j not in taken)
    return len(matches), pq, shared / union if union else math.nan


@settings(max_examples=150)
@given(st.one_of(OBJECTS, BLOBS), st.one_of(OBJECTS, BLOBS))
def test_scores_are_those_of_every_pair_of_objects(
    truth: np.ndarray, prediction: np.ndarray
) -> None:
    found = scored(truth, prediction)
    matched, pq, aji = brute(truth, prediction)
    assert found.matched == matched
    assert found.pq == pytest.approx(pq, nan_ok=True)
    assert found.aji == pytest.approx(aji, nan_ok=True)
    assert found.truth == len(np.unique(truth[truth > 0]))
    assert found.prediction == len(np.unique(prediction[prediction > 0]))
    if found.matched:
        assert found.pq == pytest.approx(found.sq * found.rq)


@settings(max_examples=50)
@given(BLOBS, BLOBS)
def test_panoptic_quality_is_monais(truth: np.ndarray, prediction: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quality = pytest.importorskip("monai.metrics.panoptic_quality")
    if not (truth.any() and prediction.any()):
        return
    found = scored(truth, prediction)
    for name, value in (("pq", found.pq), ("sq", found.sq), ("rq", found.rq)):
        expected = quality.compute_panoptic_quality(
            torch.from_numpy(prediction.astype(np.int64)),
            torch.from_numpy(truth.astype(np.int64)),
            metric_name=name,
            remap=True,
            match_iou_threshold=0.5,
            smooth_numerator=0.0,
        )
        assert float(expected) == pytest.approx(value, abs=1e-6, nan_ok=True)


def test_an_iou_of_exactly_a_half_is_no_match() -> None:
    truth = np.array([1, 1, 1, 1, 0, 0])
    found = scored(truth, np.array([1, 1, 0, 0, 0, 0]))
    assert (found.matched, found.f1, found.pq) == (0, 0, 0)
    assert math.isnan(found.sq)
    assert found.aji == 0.5


def test_a_worked_example() -> None:
    """Three nuclei: one found well (IoU 3/4), one split in halves, one missed; one made up."""
    truth = np.array([1, 1, 1, 0, 2, 2, 2, 2, 3, 3, 0, 0])
    prediction = np.array([9, 9, 9, 9, 4, 4, 5, 5, 0, 0, 6, 0])
    found = scored(truth, prediction)
    assert (found.truth, found.prediction, found.matched) == (3, 4, 1)
    assert found.f1 == found.rq == pytest.approx(2 / 7)
    assert found.precision == 1 / 4
    assert found.recall == 1 / 3
    assert found.sq == 3 / 4
    assert found.pq == pytest.approx(0.75 / (1 + 1 + 1.5))
    # 3 + 2 shared; unions 4 (first), 4 (second with its first half), 2 (missed), 2 + 1 (untaken)
    assert found.aji == pytest.approx(5 / 13)


def test_no_objects_at_all_have_no_score_and_no_objects_on_one_side_score_zero() -> None:
    nothing, something = np.zeros(4, int), np.array([0, 1, 1, 0])
    both = scored(nothing, nothing)
    assert all(math.isnan(value) for value in (both.f1, both.pq, both.sq, both.aji))
    for found in (scored(nothing, something), scored(something, nothing)):
        assert (found.f1, found.pq, found.aji) == (0, 0, 0)

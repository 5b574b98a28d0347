from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_unet.metrics.confusion import class_pixels, confusion_matrix, pixel_error
from wsi_unet.metrics.overlaps import count_overlaps

LABELS = arrays(np.uint8, (6, 7), elements=st.integers(0, 3))


@given(LABELS, LABELS)
def test_scores_are_those_of_the_definitions(truth: np.ndarray, prediction: np.ndarray) -> None:
    matrix = confusion_matrix(count_overlaps(truth, prediction), range(4))
    for value in range(4):
        counts = class_pixels(matrix, value)
        one, two = {*np.flatnonzero(truth == value)}, {*np.flatnonzero(prediction == value)}
        for got, part, whole in (
            (counts.dice, 2 * len(one & two), len(one) + len(two)),
            (counts.iou, len(one & two), len(one | two)),
            (counts.precision, len(one & two), len(two)),
            (counts.recall, len(one & two), len(one)),
            (counts.pixel_error, len(one ^ two), truth.size),
        ):
            if whole:
                assert got == part / whole
            else:
                assert math.isnan(got)
    assert pixel_error(matrix) == pytest.approx(np.mean(truth != prediction))


def test_rows_are_truth() -> None:
    found = count_overlaps(np.array([1, 1, 1, 0]), np.array([0, 0, 1, 1]))
    assert confusion_matrix(found, [0, 1]).tolist() == [[0, 1], [2, 1]]
    assert confusion_matrix(found, [1]).tolist() == [[1]]


@given(LABELS, LABELS)
def test_dice_is_monais(truth: np.ndarray, prediction: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = pytest.importorskip("monai.metrics")
    hot = [
        torch.from_numpy(np.stack([labels == value for value in range(4)])[None])
        for labels in (prediction, truth)
    ]
    # MONAI leaves out classes that the truth hasn't; ours are left out if neither has them.
    expected = metrics.compute_dice(*hot, ignore_empty=True)[0].tolist()
    matrix = confusion_matrix(count_overlaps(truth, prediction), range(4))
    for value in range(4):
        if not math.isnan(expected[value]):
            assert class_pixels(matrix, value).dice == pytest.approx(expected[value])


def test_a_class_in_neither_has_no_score_but_no_error() -> None:
    counts = class_pixels(
        confusion_matrix(count_overlaps(np.zeros(5, int), np.zeros(5, int)), [0, 1]), 1
    )
    assert all(math.isnan(v) for v in (counts.dice, counts.iou, counts.precision, counts.recall))
    assert counts.pixel_error == 0

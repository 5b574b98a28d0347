from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_unet.metrics import overlaps
from wsi_unet.metrics.overlaps import Overlaps, count_overlaps, merge_overlaps

LABELS = arrays(np.uint16, (7, 9), elements=st.sampled_from([0, 1, 2, 3, 255, 65535]))
VALID = arrays(np.bool_, (7, 9))


def as_counter(found: Overlaps) -> Counter[tuple[int, int]]:
    pairs = zip(found.truth.tolist(), found.prediction.tolist(), strict=True)
    return Counter(dict(zip(pairs, found.pixels.tolist(), strict=True)))


@pytest.mark.parametrize("dense", [0, 1 << 40])
@given(LABELS, LABELS, VALID)
def test_every_pixel_is_counted_once(
    dense: int, truth: np.ndarray, prediction: np.ndarray, valid: np.ndarray
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # A table of 65536 x 65536 isn't laid out; small ones are.
        patch.setattr(overlaps, "DENSE", min(dense, 1 << 20))
        found = count_overlaps(truth, prediction, valid)
    expected = Counter(zip(truth[valid].tolist(), prediction[valid].tolist(), strict=True))
    assert as_counter(found) == expected
    assert found.total == valid.sum()
    pairs = list(zip(found.truth.tolist(), found.prediction.tolist(), strict=True))
    assert pairs == sorted(expected)


@given(LABELS, LABELS, st.integers(1, 9), st.integers(1, 9), st.randoms())
def test_chunks_add_up_in_any_order(
    truth: np.ndarray, prediction: np.ndarray, height: int, width: int, random: object
) -> None:
    parts = [
        count_overlaps(
            truth[y : y + height, x : x + width], prediction[y : y + height, x : x + width]
        )
        for y in range(0, 7, height)
        for x in range(0, 9, width)
    ]
    random.shuffle(parts)  # type: ignore[attr-defined]
    merged, whole = merge_overlaps(parts), count_overlaps(truth, prediction)
    for name in ("truth", "prediction", "pixels"):
        assert getattr(merged, name).tolist() == getattr(whole, name).tolist()


def test_nothing_is_counted_as_nothing() -> None:
    empty = count_overlaps(np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.uint8))
    assert empty.total == 0
    assert merge_overlaps([empty, empty]).total == 0

"""Regions as runs against regions as pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from objects.shapes import Labels
from scipy import ndimage

from wsi_unet.objects.regions import find_values, label_components
from wsi_unet.objects.runs import Runs, sort_small
from wsi_unet.objects.sums import count_crossings, find_cut, sum_moments

EIGHT = np.ones((3, 3), np.bool_)

images = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 13), st.integers(1, 13)),
    elements=st.sampled_from([0, 0, 1, 1, 2, 255]),
)


def label_by_pixels(labels: Labels) -> NDArray[np.int32]:
    numbers, total = np.zeros(labels.shape, np.int32), 0
    for value in np.unique(labels[labels > 0]):
        found, count = ndimage.label(labels == value, EIGHT)
        numbers += np.where(found, found + total, 0).astype(np.int32)
        total += count
    return numbers


@settings(max_examples=150, deadline=None)
@given(labels=images)
def test_components(labels: Labels) -> None:
    regions, numbers = label_components(labels), label_by_pixels(labels)
    assert (regions.numbers == numbers).all()
    assert (Runs.find(numbers).draw() == numbers).all()
    assert find_values(labels) == [v for v in np.unique(labels).tolist() if v]
    for index, (own_rows, own_columns) in enumerate(ndimage.find_objects(numbers)):
        y, x = np.nonzero(numbers == index + 1)
        assert regions.boxes[index].tolist() == [
            own_rows.start,
            own_columns.start,
            own_rows.stop,
            own_columns.stop,
        ]
        assert regions.first[index].tolist() == [y[0], x[0]]
        assert regions.values[index] == labels[y[0], x[0]]
    for row in range(labels.shape[0]):
        assert (regions.runs.draw_row(row) == numbers[row]).all()
    for column in range(labels.shape[1]):
        assert (regions.runs.draw_column(column) == numbers[:, column]).all()


@settings(max_examples=100, deadline=None)
@given(labels=images, seed=st.integers(0, 9))
def test_selected_regions(labels: Labels, seed: int) -> None:
    regions = label_components(labels)
    kept = np.random.default_rng(seed).random(len(regions)) < 0.5
    chosen = regions.select(kept)
    lookup = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)])
    assert (chosen.numbers == lookup[regions.numbers]).all()
    assert (chosen.boxes == regions.boxes[kept]).all()


@settings(max_examples=150, deadline=None)
@given(labels=images, seed=st.integers(0, 9))
def test_sums(labels: Labels, seed: int) -> None:
    regions, total = label_components(labels), int(label_by_pixels(labels).max())
    random = np.random.default_rng(seed)
    predicted = random.random((labels.shape[0] + 2, labels.shape[1] + 2)) < 0.95
    origins = random.integers(-5, 5, (total, 2))
    moments = sum_moments(regions.runs, origins)
    crossings = count_crossings(regions.runs, moments[:, 0])
    cut = find_cut(regions.runs, predicted, total)
    for index in range(total):
        mask = np.pad(regions.numbers == index + 1, 1)
        y, x = np.nonzero(mask)
        near = ndimage.binary_dilation(mask, EIGHT)
        assert cut[index] == (near & ~predicted).any()
        assert crossings[index].tolist() == [
            (mask[:, 1:] != mask[:, :-1]).sum(),
            (mask[1:] != mask[:-1]).sum(),
            (mask[1:, 1:] != mask[:-1, :-1]).sum() + (mask[1:, :-1] != mask[:-1, 1:]).sum(),
        ]
        y, x = y - 1 - origins[index, 0], x - 1 - origins[index, 1]
        expected = [len(y), y.sum(), x.sum(), (y * y).sum(), (x * x).sum(), (x * y).sum()]
        assert moments[index].tolist() == expected


@pytest.mark.parametrize("most", [10, 70_000, 1 << 40])
def test_small_numbers_are_sorted_stably(most: int) -> None:
    values = np.random.default_rng(0).integers(0, most, 5000)
    assert (sort_small(values) == np.argsort(values, kind="stable")).all()
    assert len(sort_small(values[:0])) == 0

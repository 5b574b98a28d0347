"""Splitting on sheets, by basins and saddles, against the definition on the whole image.

Also where heights are just as high as saddles are deep.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from objects import shapes
from objects.shapes import Labels
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from wsi_unet.objects.regions import Regions, label_components
from wsi_unet.objects.runs import Runs
from wsi_unet.objects.splitting import distances, maxima, sheets
from wsi_unet.objects.splitting.by_distance import split_by_distance
from wsi_unet.objects.splitting.distances import find_steps

EIGHT = np.ones((3, 3), np.bool_)
PIXELS = ((0.5, 0.5), (0.5, 0.25), (0.2, 0.3), (0.501, 0.5))


def split_whole(
    regions: Regions, heights: NDArray[np.float64], pixel_size: tuple[float, float]
) -> NDArray[np.int64]:
    """Split all regions on one image by reconstruction, and number each one's parts apart."""
    *steps, unit = find_steps(pixel_size)
    found, total = np.zeros(regions.numbers.shape, np.int64), 0
    for index, height in enumerate(heights.tolist()):
        inside = np.pad(regions.numbers == index + 1, 1)
        distance = ndimage.distance_transform_edt(inside, sampling=steps)
        seeds, parts = inside.astype(np.int32), inside.astype(np.int32)
        if height and (distance - height / unit).max() > 0:
            rebuilt = reconstruction(distance - height / unit, distance, footprint=EIGHT)  # type: ignore[no-untyped-call]
            highest = local_maxima(rebuilt, connectivity=2)  # type: ignore[no-untyped-call]
            seeds, _ = ndimage.label(highest & inside, EIGHT)
            relief, marked = -distance, np.flatnonzero(seeds)
            relief.ravel()[marked] = np.arange(len(marked)) - len(marked) - distance.max() - 1
            parts = watershed(relief, seeds, connectivity=2, mask=inside)  # type: ignore[no-untyped-call]
        own = parts[1:-1, 1:-1]
        found[own > 0] = own[own > 0] + total
        total += int(own.max())
    return found


def check_split(labels: Labels, heights: list[float], pixel_size: tuple[float, float]) -> None:
    regions = label_components(labels)
    height = np.resize(np.array(heights, np.float64), len(regions))
    found = split_by_distance(regions, labels, height, pixel_size)
    expected = split_whole(regions, height, pixel_size)
    pairs = np.unique(np.stack([found.numbers.ravel(), expected.ravel()]), axis=1)
    assert len(found) == expected.max(initial=0)
    assert pairs.shape[1] == len(np.unique(expected))  # each part is one part
    for index, (y, x) in enumerate(found.first.tolist()):
        assert (y, x) == tuple(np.argwhere(found.numbers == index + 1)[0].tolist())
        assert found.values[index] == labels[y, x]


@pytest.fixture(params=[(512, 1 << 17, 64), (16, 200, 64), (30, 1, 0)])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    width, pixels, rows = request.param
    monkeypatch.setattr(sheets, "WIDTH", width)
    monkeypatch.setattr(sheets, "PIXELS", pixels)
    monkeypatch.setattr(distances, "MOST_ROWS", rows)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("pixel_size", PIXELS)
@pytest.mark.parametrize("make", [shapes.touching_discs, shapes.spiral, shapes.rings, shapes.full])
def test_shapes(make: object, pixel_size: tuple[float, float]) -> None:
    labels: Labels = make(70)  # type: ignore[operator]
    check_split(labels, [0.5, 0.0, 0.3, 1.0, 0.01, 100.0], pixel_size)
    check_split(labels, [0.5], pixel_size)


shape = st.tuples(st.integers(1, 9), st.integers(1, 9))
images = hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1, 1, 2]))
height = st.sampled_from([0.0, 0.05, 0.25, 0.5, 0.75, 1.0, 2.0, 1e6])
heights = st.lists(height, min_size=1, max_size=4)


@settings(max_examples=120, deadline=None)
@given(labels=images, factor=st.integers(1, 6), heights=heights, pixel=st.sampled_from(PIXELS))
def test_random_labels(
    labels: Labels, factor: int, heights: list[float], pixel: tuple[float, float]
) -> None:
    check_split(labels.repeat(factor, 0).repeat(factor, 1), heights, pixel)


def test_nothing_is_split_without_heights() -> None:
    labels = shapes.touching_discs(40)
    regions = label_components(labels)
    assert split_by_distance(regions, labels, np.zeros(len(regions)), (1, 1)) is regions
    nothing = label_components(labels * 0)
    assert len(split_by_distance(nothing, labels, np.zeros(0), (1, 1))) == 0


@settings(max_examples=60, deadline=None)
@given(labels=images, factor=st.integers(1, 9), steps=st.sampled_from([(1, 1), (2, 1), (3, 7)]))
def test_squares_of_distances(labels: Labels, factor: int, steps: tuple[int, int]) -> None:
    inside = np.pad((labels > 0).repeat(factor, 0).repeat(factor, 1), 1)
    runs = Runs.find(inside.astype(np.int32))
    expected = np.rint(ndimage.distance_transform_edt(inside, sampling=steps) ** 2)
    for rows in (0, 64):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distances, "MOST_ROWS", rows)
            assert (distances.measure_squares(runs, runs.find_pixels(), steps) == expected).all()


def test_huge_squares_are_compared_too() -> None:
    squares = np.random.default_rng(0).integers(0, 9, (40, 50))
    squares[:, [0, -1]] = squares[[0, -1]] = 0
    find = maxima._find_highest_neighbours
    assert (find(squares) == find(squares * (1 << 58))).all()
    best = ndimage.maximum_filter(squares, 3, mode="constant")
    assert (squares.ravel()[find(squares)] == best.ravel()).all()

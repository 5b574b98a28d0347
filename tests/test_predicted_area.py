"""Predicted areas against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_unet.geometry import Box, merge_boxes
from wsi_unet.predicted_area import PredictedArea


@st.composite
def areas(draw: st.DrawFn) -> PredictedArea:
    shape = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    edges = st.integers(0, 50)
    drawn = draw(st.lists(st.builds(Box, edges, edges, edges, edges), max_size=4))
    boxes = merge_boxes(box.intersection(Box.from_shape(shape)) for box in drawn)
    if draw(st.booleans()):
        boxes = (Box.from_shape(shape),)
    mask: Any = None
    if draw(st.booleans()):
        random = np.random.default_rng(draw(st.integers(0, 99)))
        cells = draw(st.integers(1, 70)), draw(st.integers(1, 70))
        mask = np.less(random.random(cells), draw(st.sampled_from([0.02, 0.3, 0.9, 1.1])))
    return PredictedArea(shape, boxes, mask)


def brute_force(area: PredictedArea) -> NDArray[np.bool_]:
    """Return which level-0 pixels are predicted, one by one."""
    predicted = np.zeros(area.shape, bool)
    for y in range(area.shape[0]):
        for x in range(area.shape[1]):
            inside = any(b.y0 <= y < b.y1 and b.x0 <= x < b.x1 for b in area.boxes)
            if inside and area.mask is not None:
                rows, columns = area.mask.shape
                cell = (
                    (2 * y + 1) * rows // (2 * area.shape[0]),
                    ((2 * x + 1) * columns // (2 * area.shape[1])),
                )
                inside = bool(area.mask[cell])
            predicted[y, x] = inside
    return predicted


def reduce_any(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = pixels.shape
    padded = np.pad(pixels, ((0, rows % 2), (0, columns % 2)))
    halved = padded[::2] | padded[1::2]
    result: NDArray[np.bool_] = halved[:, ::2] | halved[:, 1::2]
    return result


@given(areas(), st.data())
def test_every_level_of_an_area(area: PredictedArea, data: st.DataObject) -> None:
    expected = brute_force(area)
    assert area.whole == bool(expected.all()) or (area.mask is not None and not area.mask.all())
    for level in range(6):
        whole = Box.from_shape((expected.shape[0], expected.shape[1]))
        assert np.array_equal(area.read(whole, level), expected)
        y, x = data.draw(st.integers(0, whole.y1 - 1)), data.draw(st.integers(0, whole.x1 - 1))
        part = Box(y, x, data.draw(st.integers(y + 1, whole.y1)), whole.x1)
        assert np.array_equal(area.read(part, level), expected[part.slices()])
        if level == 0:
            assert area.touches(part) or not expected[part.slices()].any()
            near = area.near(part)
            assert np.array_equal(near.read(part), expected[part.slices()])
            assert near.touches(part) == area.touches(part)
            assert all(box.intersection(part).area for box in near.boxes)
        expected = reduce_any(expected)


def test_only_tiles_of_the_area_are_touched() -> None:
    area = PredictedArea((100, 100), (Box(10, 10, 20, 20), Box(50, 50, 60, 90)))
    assert area.touches(Box(19, 19, 40, 40))
    assert not area.touches(Box(20, 10, 50, 100))
    assert not PredictedArea((100, 100), ()).touches(Box(0, 0, 100, 100))

"""Overlays of results whose objects are stored: each has an outline of its own."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from objects import oracle, shapes
from objects.test_run import edit
from PIL import Image
from support.labelled import write_store

import wsi_unet
from wsi_unet.errors import OutputError
from wsi_unet.geometry import Box
from wsi_unet.labels.pyramid import reduce_mode
from wsi_unet.objects.painting.stored import StoredObjects, number_by_class
from wsi_unet.objects.search import LARGEST_BOX
from wsi_unet.storage.opening import open_store
from wsi_unet.view import layers, object_outlines, overlay, write_overlay
from wsi_unet.view.object_outlines import read_level
from wsi_unet.view.painting import find_outline, find_outlines

SHAPE = (560, 620)
SPLIT = "distance:0.6"
BLUE, WHITE = "#0000ff", 255


@pytest.fixture(scope="module")
def labels() -> shapes.Labels:
    found = np.zeros(SHAPE, np.uint8)
    found[460:560, 470:570] = shapes.touching_discs(100)  # across four blocks
    y, x = np.mgrid[:100, :200]
    for middle in (40, 84):  # two that touch
        found[100:200, 100:300][(y - 50) ** 2 + (x - middle) ** 2 <= 25**2] = 1
    found[20:23, 20:24] = 1  # too small to keep
    return found


@pytest.fixture
def store(tmp_path: Path, labels: shapes.Labels) -> Path:
    return write_store(tmp_path / "out.ome.zarr", labels, color=BLUE)


def draw(store: Path, **options: Any) -> NDArray[np.int_]:
    """Return the picture without what is beside it, and with its legend below."""
    with Image.open(write_overlay(store, store.parent / "drawn.png", **options)) as image:
        return np.asarray(image.convert("RGB"), int)


def draw_slide(store: Path, **options: Any) -> NDArray[np.int_]:
    picture = draw(store, **options)
    left = (picture.shape[1] - SHAPE[1]) // 2  # where the legend is wider
    return picture[: SHAPE[0], left : left + SHAPE[1]]


def find_edges(numbers: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Return the pixels of objects with another number within `width` steps, one by one."""
    edges = np.zeros(numbers.shape, np.bool_)
    for y, x in np.argwhere(numbers):
        for dy in range(-width, width + 1):
            for dx in range(abs(dy) - width, width - abs(dy) + 1):
                v, u = y + dy, x + dx
                if 0 <= v < numbers.shape[0] and 0 <= u < numbers.shape[1]:
                    edges[y, x] |= numbers[v, u] != numbers[y, x]
    return edges


@given(
    hnp.arrays(
        np.uint64, st.tuples(st.integers(1, 12), st.integers(1, 12)),
        elements=st.sampled_from([0, 257, 257, 257, 513, 514]),
    ),
    st.integers(1, 3),
)  # fmt: skip
def test_outlines_are_where_another_object_is_near(numbers: NDArray[np.uint64], width: int) -> None:
    found = find_outlines(numbers, width)
    each = [find_outline(numbers == number, width) for number in np.unique(numbers) if number]
    assert np.array_equal(found, np.any([np.zeros(numbers.shape, np.bool_), *each], axis=0))
    if width == 1:
        assert np.array_equal(found, find_edges(numbers.astype(np.int64), width))


def test_each_object_has_an_outline(store: Path, labels: shapes.Labels) -> None:
    before = draw_slide(store)
    wsi_unet.find_objects(store, split=SPLIT)
    after = draw_slide(store)
    numbers = np.zeros(SHAPE, np.int64)
    for box in (np.s_[:60], np.s_[90:210, 90:310], np.s_[450:, 460:580]):  # apart: quicker
        found = oracle.find(labels[box], {1: 1.2, 2: 1.2}, LARGEST_BOX).numbers
        numbers[box] = np.where(found, found + numbers.max(), 0)
    assert (labels[150, 162], numbers[150, 161] != numbers[150, 163]) == (1, True)
    edges, outlines = find_edges(numbers, 1), find_edges(labels.astype(np.int64), 1)
    bar = np.s_[:520]  # above the scale bar
    assert np.array_equal((after[bar, :, 0] < 20), edges[bar]), "nearly opaque"
    assert np.array_equal((before[bar, :, 0] < 20), outlines[bar])
    assert (edges & ~outlines)[bar].any()
    inside = (labels > 0) & ~edges
    assert np.array_equal(after[bar][inside[bar]], before[bar][inside[bar]])
    assert (after[bar][labels[bar] == 0] == WHITE).all()


def test_dropped_objects_have_none(store: Path) -> None:
    wsi_unet.find_objects(store, split=SPLIT, min_area=20)
    picture = draw_slide(store)
    small = picture[20:23, 20:24]
    assert (small == small[0, 0]).all()
    assert 20 < small[0, 0, 0] < WHITE, "filled, not outlined"
    wsi_unet.find_objects(store, min_area=1e6)
    assert (draw_slide(store)[:520, :, 0] > 20).all()


@pytest.mark.parametrize(
    "options",
    [{"max_side": 620}, {"max_side": 311}, {"max_side": 500, "region": (80, 33, 500, 520)}],
    ids=str,
)
def test_bands_make_no_difference(
    store: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    wsi_unet.find_objects(store, split=SPLIT, min_area=1)
    monkeypatch.setattr(object_outlines, "SMALLEST", 0.0)
    at_once = draw(store, **options)
    monkeypatch.setattr(overlay, "BAND_PIXELS", 7 * 900)
    monkeypatch.setattr(layers, "STRIP_BYTES", 40 * 8 * 900)
    monkeypatch.setattr(object_outlines, "TILE", 64)
    difference = np.abs(draw(store, **options) - at_once)
    assert difference.max() <= 1, "but for rounding"
    assert (difference > 0).mean() < 0.01


def test_a_part_is_what_the_whole_shows_there(store: Path) -> None:
    wsi_unet.find_objects(store, split=SPLIT)
    whole = draw_slide(store)
    part = draw(store, region=(90, 90, 220, 200))
    left = (part.shape[1] - 220) // 2
    shown, expected = part[:120, left : left + 220], whole[90:210, 90:310]  # above the bar
    assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 2])
def test_levels_are_reduced_as_labels_are(store: Path, level: int) -> None:
    wsi_unet.find_objects(store, split=SPLIT)
    objects = StoredObjects.open(open_store(store), "nuclei")
    whole = objects.paint(Box.from_shape(SHAPE), number_by_class, np.dtype(np.uint64))
    for _ in range(level):
        whole = reduce_mode(whole)
    rows, columns = whole.shape
    for box in (Box(0, 0, rows, columns), Box(rows // 3, 1, rows, columns - 2)):
        assert np.array_equal(read_level(objects, level, box), whole[box.slices()])


@pytest.mark.parametrize("why", ["plain", "outdated", "unfinished", "small"])
def test_otherwise_outlines_are_those_of_classes(store: Path, why: str) -> None:
    """And so where all objects are components, which have the same outlines."""
    size = 80 if why == "small" else 620
    before = draw(store, max_side=size)
    wsi_unet.find_objects(store, split="none" if why == "plain" else SPLIT)
    record = store / ".wsi_unet/nuclei/objects/nuclei/stage.json"
    if why == "outdated":
        edit(record, lambda stage: stage.update(labels_finished="before"))
    elif why == "unfinished":
        edit(record, lambda stage: stage.update(finished=None))
    after = draw(store, max_side=size)
    rows = round(size * SHAPE[0] / SHAPE[1])
    middle = [(each.shape[1] - size) // 2 for each in (before, after)]
    first, second = (
        each[:rows, left : left + size] for each, left in zip((before, after), middle, strict=True)
    )
    assert np.array_equal(first, second)


def test_missing_parts_are_said(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = draw_slide(store)
    wsi_unet.find_objects(store, split=SPLIT)
    part = store / "objects/nuclei/0.0.parquet"
    data = part.read_bytes()
    part.unlink()
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(draw_slide(store)[:520], before[:520])
    messages = [each.getMessage() for each in caplog.records]
    (message,) = [each for each in messages if "objects of 'nuclei'" in each]
    assert message.endswith("until then, outlines are those of classes")
    part.write_bytes(data[:-1] + b"\0")
    with pytest.raises(OutputError, match=r"0\.0\.parquet' is damaged"):
        draw(store)


def test_the_legend_counts_objects(store: Path) -> None:
    before = draw(store)
    wsi_unet.find_objects(store, split=SPLIT)
    after = draw(store)
    assert (after[SHAPE[0] :] < 200).sum() > (before[SHAPE[0] :] < 200).sum()


def test_memory_follows_neither_picture_nor_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "BAND_PIXELS", 1 << 15)
    monkeypatch.setattr(layers, "STRIP_BYTES", 1 << 17)
    monkeypatch.setattr(object_outlines, "TILE", 128)
    monkeypatch.setattr("wsi_unet.objects.painting.stored.CACHE_BYTES", 1 << 20)
    store = write_store(tmp_path / "out", np.tile(shapes.touching_discs(125), (8, 8)), mpp=None)
    wsi_unet.find_objects(store, min_area=2)
    peaks = []
    for side in (200, 1000):
        options: dict[str, Any] = {"max_side": side, "region": (0, 0, side, side)}
        write_overlay(store, tmp_path / "o.png", **options)  # what stays in memory is there now
        tracemalloc.start()
        try:
            write_overlay(store, tmp_path / "o.png", **options)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1000 * 1000 * 8, "the numbers of all pixels"
    assert peaks[1] < 4 * peaks[0], "for 25 times as many pixels"

"""Scores of `evaluate` for objects and segments whose scores are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import adapted_rand_error
from support.labelled import rectangle, write_geojson

import wsi_unet
from wsi_unet.geometry import Box

SHAPE = (300, 410)


def image(path: Path, labels: NDArray[Any]) -> Path:
    Image.fromarray(labels).save(path)
    return path


def test_objects_of_images_are_their_numbers(tmp_path: Path) -> None:
    truth = np.zeros(SHAPE, np.uint16)
    truth[10:30, 10:30], truth[10:30, 30:50] = 700, 9  # two that touch
    truth[100:120, 100:120] = 5
    prediction = np.zeros(SHAPE, np.int32)
    prediction[10:30, 10:31], prediction[10:30, 31:50] = 1, 2
    prediction[200:220, 100:120] = 70000
    tifffile.imwrite(tmp_path / "p.tif", prediction)
    found = wsi_unet.evaluate(tmp_path / "p.tif", image(tmp_path / "t.png", truth), instances=True)
    assert found.objects is not None
    assert (found.objects.truth, found.objects.prediction, found.objects.matched) == (3, 3, 2)
    assert found.objects.pq == pytest.approx((20 / 21 + 19 / 20) / 3)
    assert [one.name for one in found.classes] == ["background", "objects"]


def test_objects_of_masks_labels_and_annotations_are_connected_parts(
    tmp_path: Path, make_store: Any
) -> None:
    boxes = [Box(10, 10, 40, 60), Box(100, 100, 130, 130), Box(200, 40, 260, 90)]
    labels = np.zeros(SHAPE, np.uint8)
    for value, box in zip((1, 2, 1), boxes, strict=True):
        labels[box.slices()] = value
    store = make_store(labels)
    mask = image(tmp_path / "mask.png", (labels > 0) * np.uint8(255))
    drawn = write_geojson(tmp_path / "t.geojson", [("x", rectangle(box)) for box in boxes])
    for prediction, truth in ((store, mask), (mask, store), (store, drawn), (mask, drawn)):
        found = wsi_unet.evaluate(prediction, truth, instances=True).objects
        assert found is not None
        assert (found.truth, found.prediction, found.pq, found.aji) == (3, 3, 1, 1)


def test_an_object_cut_by_a_region_counts_as_far_as_it_lies_inside(tmp_path: Path) -> None:
    truth = np.zeros(SHAPE, np.uint8)
    truth[10:30, 10:30] = 1
    truth[100:110, 10:30] = 2
    prediction = truth.copy()
    prediction[20:30] = 0
    files = image(tmp_path / "p.png", prediction), image(tmp_path / "t.png", truth)
    found = wsi_unet.evaluate(*files, instances=True, region=(0, 0, 100, 20)).objects
    assert found is not None
    assert (found.truth, found.pq) == (1, 1)


def test_segments_are_scored_after_thinning(tmp_path: Path) -> None:
    truth = np.full((90, 90), 255, np.uint8)
    truth[:, 43:46] = truth[43:46] = 0
    prediction = np.full((90, 90), 1, np.uint8)
    prediction[:, 40:50] = prediction[40:50] = 0
    found = wsi_unet.evaluate(
        image(tmp_path / "p.png", prediction), image(tmp_path / "t.png", truth), em=True
    )
    segments = found.segments
    assert segments is not None
    assert segments.v_rand > 0.97
    assert segments.v_info > 0.93
    raw = np.where(prediction == 0, np.arange(8100).reshape(90, 90) + 10, 0)
    for number, part in enumerate(
        (np.s_[:40, :40], np.s_[:40, 50:], np.s_[50:, :40], np.s_[50:, 50:])
    ):
        raw[part] = number + 1
    cells = np.zeros((90, 90), int)
    for number, part in enumerate(
        (np.s_[:43, :43], np.s_[:43, 46:], np.s_[46:, :43], np.s_[46:, 46:])
    ):
        cells[part] = number + 1
    expected = adapted_rand_error(cells, raw, ignore_labels=(0,))[0]  # type: ignore[no-untyped-call]
    assert segments.rand_error == pytest.approx(expected)
    assert [one.name for one in found.classes] == ["border", "segments"]


def test_real_nuclei_against_themselves_and_shifted() -> None:
    folder = Path(__file__).resolve().parents[1] / "data" / "nuclei_he" / "instances"
    for path in sorted(folder.glob("*.png")):
        same = wsi_unet.evaluate(path, path, instances=True)
        assert same.objects is not None
        assert (same.objects.pq, same.objects.aji, same.mean_dice) == (1, 1, 1)
        values = np.asarray(Image.open(path))
        shifted = xr.DataArray(np.roll(values, 2, axis=1), dims=("y", "x"))
        moved = wsi_unet.evaluate(shifted, path, instances=True)
        assert moved.objects is not None
        assert 0.4 < moved.objects.pq < 1
        assert moved.objects.aji < 1
        assert 0.7 < moved.mean_dice < 1
        assert moved.mean_boundary_f1 > 0.9

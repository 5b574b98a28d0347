"""Scores of `evaluate` for pairs whose scores are known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from support.labelled import blobs, rectangle, write_geojson

import wsi_unet
from wsi_unet.evaluation import pairs
from wsi_unet.geometry import Box

SHAPE = (300, 410)


def image(path: Path, labels: NDArray[Any]) -> Path:
    Image.fromarray(labels).save(path)
    return path


def dice(truth: NDArray[Any], prediction: NDArray[Any], value: int) -> float:
    one, two = truth == value, prediction == value
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


def test_two_images_are_compared_by_value(tmp_path: Path) -> None:
    truth, prediction = blobs(SHAPE), blobs(SHAPE, 1)
    found = wsi_unet.evaluate(
        image(tmp_path / "p.png", prediction), image(tmp_path / "t.png", truth)
    )
    assert found.kind == "classes"
    assert found.pixels == truth.size
    assert [one.name for one in found.classes] == ["0", "1", "2"]
    for one in found.classes:
        assert one.dice == pytest.approx(dice(truth, prediction, one.value))
        assert one.truth_pixels == (truth == one.value).sum()
    expected = [[int(((truth == i) & (prediction == j)).sum()) for j in range(3)] for i in range(3)]
    assert [list(row) for row in found.confusion] == expected
    assert found.pixel_error == pytest.approx(np.mean(truth != prediction))
    assert found.mean_dice == pytest.approx(np.mean([one.dice for one in found.classes[1:]]))


def test_a_store_is_compared_with_itself_as_store_image_array_and_tiff(
    tmp_path: Path, make_store: Any
) -> None:
    labels = blobs((700, 900))
    store = make_store(labels)
    tifffile.imwrite(tmp_path / "a.tif", labels)
    tifffile.imwrite(
        tmp_path / "b.tif", labels.astype(np.uint16), compression="zlib", tile=(64, 64)
    )
    truths = [
        store,
        str(store),
        image(tmp_path / "t.png", labels),
        tmp_path / "a.tif",
        tmp_path / "b.tif",
        wsi_unet.open_labels(store),
        xr.DataArray(labels, dims=("y", "x")),
    ]
    for truth in truths:
        found = wsi_unet.evaluate(store, truth)
        assert found.pixel_error == 0
        assert {one.dice for one in found.classes} == {1.0}
        assert [one.name for one in found.classes] == ["background", "nucleus", "tumour"]
        assert found.mean_boundary_f1 == 1
        assert found.pixels == labels.size


@pytest.mark.parametrize("side", [64, 100, 301, 4096])
@pytest.mark.parametrize("instances", [False, True])
def test_how_the_area_is_cut_changes_no_number(
    tmp_path: Path, make_store: Any, monkeypatch: pytest.MonkeyPatch, side: int, instances: bool
) -> None:
    store, other = make_store(blobs(SHAPE)), make_store(blobs(SHAPE, 1), "other.ome.zarr")
    features = [("nucleus", rectangle(Box(20, 30, 200, 333))), ("x", rectangle(Box(9, 9, 90, 90)))]
    within = write_geojson(tmp_path / "w.geojson", features)
    options: dict[str, Any] = {"within": within, "ignore": [2], "tolerance": 3.5}
    found = []
    for size in (2048, side):
        monkeypatch.setattr(pairs, "SIDE", size)
        found.append(wsi_unet.evaluate(store, other, instances=instances, **options).to_json())
    assert found[0] == found[1]


def test_values_of_the_truth_are_translated(tmp_path: Path) -> None:
    """The ISBI pair: classes 0 and 1 against an image of 0 and 255."""
    truth, prediction = blobs(SHAPE, values=2), blobs(SHAPE, 1, values=2)
    found = wsi_unet.evaluate(
        image(tmp_path / "p.png", prediction),
        image(tmp_path / "t.png", truth * np.uint8(255)),
        classes={"cell": (1, 255)},
    )
    assert [(one.value, one.name) for one in found.classes] == [(0, "background"), (1, "cell")]
    assert found.classes[1].dice == pytest.approx(dice(truth, prediction, 1))


def test_classes_meet_by_name_whatever_their_values(make_store: Any) -> None:
    labels = blobs(SHAPE)
    swapped = np.array([0, 2, 1], np.uint8)[labels]
    one = make_store(labels)
    two = make_store(swapped, "b.ome.zarr", classes=("none", "Tumour", "NUCLEUS"))
    assert wsi_unet.evaluate(one, two).pixel_error == 0
    other = make_store(swapped, "c.ome.zarr", classes=("none", "tumor", "nucleus"))
    with pytest.raises(wsi_unet.EvaluationError, match=r"'tumor' is none of .*mean 'tumour'\?"):
        wsi_unet.evaluate(one, other)
    assert wsi_unet.evaluate(one, other, classes={"tumor": "tumour"}).pixel_error == 0
    ignoring = wsi_unet.evaluate(one, other, ignore=["tumor"])
    assert ignoring.pixels == (labels != 2).sum()
    assert math.isnan(ignoring.classes[2].dice)


def test_annotations_are_compared_as_the_image_of_them(tmp_path: Path, make_store: Any) -> None:
    prediction = blobs(SHAPE)
    boxes = {1: Box(10, 20, 120, 200), 2: Box(50, 100, 90, 300)}
    truth = np.zeros(SHAPE, np.uint8)
    truth[boxes[1].slices()] = 1
    truth[boxes[2].slices()] = 2  # the smaller one lies on top
    store = make_store(prediction)
    features = [("Tumour", rectangle(boxes[2])), ("nucleus", rectangle(boxes[1]))]
    for order in (features, features[::-1]):
        drawn = wsi_unet.evaluate(store, write_geojson(tmp_path / "t.geojson", order)).to_json()
        painted = wsi_unet.evaluate(store, image(tmp_path / "t.png", truth)).to_json()
        assert drawn.pop("truth_annotations") == {
            "annotations": 2,
            "polygons": 2,
            "left_out": "",
        }
        for name in ("truth", "truth_annotations"):
            painted.pop(name)
            drawn.pop(name, None)
        assert drawn == painted


@pytest.mark.parametrize("mpp", [(0.25, 0.25), (0.25, 0.5), None])
def test_annotations_are_in_full_resolution_pixels(
    tmp_path: Path, make_store: Any, mpp: tuple[float, float] | None
) -> None:
    """A result with four slide pixels to a pixel, of a slide with whatever pixel size."""
    truth = np.zeros((100, 120), np.uint8)
    truth[10:40, 20:70] = 1
    store = make_store(truth, downsample=(4.0, 4.0), mpp=mpp)
    drawn = write_geojson(tmp_path / "t.geojson", [("nucleus", rectangle(Box(40, 80, 160, 280)))])
    assert wsi_unet.evaluate(store, drawn).pixel_error == 0
    part = wsi_unet.evaluate(store, drawn, region=(80, 40, 40, 20))
    assert part.confusion == ((0, 0, 0), (0, 50, 0), (0, 0, 0))


def test_crossing_polygons_need_no_repair(tmp_path: Path, make_store: Any) -> None:
    bow = [[[10, 10], [50, 50], [50, 10], [10, 50], [10, 10]]]
    labels = np.zeros(SHAPE, np.uint8)
    path = write_geojson(
        tmp_path / "t.geojson", [("nucleus", bow), ("tumour", rectangle(Box(99, 99, 120, 120)))]
    )
    found = wsi_unet.evaluate(make_store(labels), path)
    assert found.truth_annotations is not None
    assert found.truth_annotations.polygons == 2
    assert found.classes[1].truth_pixels == pytest.approx(40 * 40 / 2, rel=0.05)


def test_a_truth_of_another_pixel_size_is_brought_to_the_predictions(make_store: Any) -> None:
    fine = blobs((600, 840))
    coarse = fine[1::2, 1::2]  # of the four, the nearest by rounding up
    one = make_store(coarse, downsample=(2.0, 2.0))
    two = make_store(fine, "fine.ome.zarr")
    assert wsi_unet.evaluate(one, two).pixel_error == 0
    back = wsi_unet.evaluate(two, one)
    expected = coarse.repeat(2, 0).repeat(2, 1)
    assert back.pixel_error == pytest.approx(np.mean(fine != expected))


def test_other_slides_meet_in_micrometres(make_store: Any) -> None:
    """The same tissue, scanned twice: half as fine, and the second only the first rows of it."""
    labels = blobs((800, 800))
    one = make_store(labels, mpp=(0.25, 0.25), slide="fine")
    two = make_store(labels[:600:2, ::2], "b.ome.zarr", mpp=(0.5, 0.5), slide="coarse")
    found = wsi_unet.evaluate(one, two)
    rows, columns = (2 * ((np.arange(side) + 1) // 2) for side in (599, 799))
    assert found.pixels == 599 * 799
    assert found.pixels_left_out == 800 * 800 - found.pixels
    nearest = labels[rows[:, None], columns]
    assert found.pixel_error == pytest.approx(np.mean(labels[:599, :799] != nearest))


def test_an_image_of_the_slides_size_is_in_slide_pixels(tmp_path: Path, make_store: Any) -> None:
    fine = blobs((600, 840))
    store = make_store(fine[1::2, 1::2], downsample=(2.0, 2.0))
    assert wsi_unet.evaluate(store, image(tmp_path / "t.png", fine)).pixel_error == 0
    found = wsi_unet.evaluate(image(tmp_path / "p.png", fine), store)
    assert found.pixels == fine.size
    small = image(tmp_path / "s.png", fine[:100])
    with pytest.raises(wsi_unet.EvaluationError, match="differ in size"):
        wsi_unet.evaluate(store, small)


def test_regions_and_ignored_values_leave_out_pixels(tmp_path: Path) -> None:
    truth, prediction = blobs(SHAPE), blobs(SHAPE, 1)
    files = image(tmp_path / "p.png", prediction), image(tmp_path / "t.png", truth)
    boxes = [Box(10, 20, 120, 200), Box(150, 250, 290, 400)]
    features = [(None, rectangle(box)) for box in boxes]
    within = write_geojson(tmp_path / "w.geojson", features)
    kept = np.zeros(SHAPE, bool)
    for box in boxes:
        kept[box.slices()] = True
    found = wsi_unet.evaluate(*files, within=within)
    assert found.pixels == kept.sum()
    assert found.pixels_left_out == truth.size - kept.sum()
    assert found.classes[2].dice == pytest.approx(dice(truth[kept], prediction[kept], 2))
    found = wsi_unet.evaluate(*files, within=within, region=(0, 0, 225, 300), ignore=[1])
    kept[:, 225:] = False
    kept[truth == 1] = False
    assert found.pixels == kept.sum()
    assert found.classes[1].truth_pixels == 0
    assert found.classes[1].prediction_pixels == (prediction[kept] == 1).sum()


def test_what_a_run_of_a_region_didnt_compute_isnt_compared(make_store: Any) -> None:
    labels = blobs((1200, 1400))
    inside = np.zeros(labels.shape, bool)
    inside[5:300, 5:700] = inside[900:, 600:1030] = True
    regions = [[5, 5, 300, 700], [900, 600, 1200, 1030]]
    partial = make_store(labels * inside, "p.ome.zarr", regions=regions)
    whole = make_store(labels, "t.ome.zarr")
    for found in (wsi_unet.evaluate(partial, whole), wsi_unet.evaluate(whole, partial)):
        assert found.pixels == inside.sum()
        assert found.pixels_left_out == (~inside).sum()
        assert found.pixel_error == 0
        assert found.mean_boundary_f1 == 1


@pytest.mark.parametrize("kind", [{}, {"instances": True}, {"em": True}], ids=str)
def test_what_the_model_did_not_look_at_is_neither_right_nor_wrong(
    make_store: Any, tmp_path: Path, kind: dict[str, Any]
) -> None:
    """But how much of it the truth has is said, since the tissue may have been found too small."""
    truth, tissue = blobs((700, 600)), np.random.default_rng(0).random((7, 6)) < 0.6
    inside = np.kron(tissue, np.ones((100, 100), bool))
    store = make_store(truth * inside, tissue=tissue)
    ignored = [] if kind else [2]
    kept = inside & ~np.isin(truth, ignored)
    found = wsi_unet.evaluate(store, image(tmp_path / "t.png", truth), ignore=ignored, **kind)
    if not kind.get("em"):  # whose scores leave out borders
        assert (found.pixels, found.pixel_error) == (kept.sum(), 0)
    missed = ~inside & ~np.isin(truth, ignored)
    assert found.pixels_not_predicted == missed.sum()
    assert found.class_pixels_not_predicted == (truth[missed] > 0).sum()
    half = wsi_unet.evaluate(store, tmp_path / "t.png", region=(0, 0, 600, 350), **kind)
    assert half.pixels_not_predicted == (~inside[:350]).sum()

    as_background = wsi_unet.open_labels(store).drop_vars("predicted")
    found = wsi_unet.evaluate(as_background, tmp_path / "t.png", **kind)
    assert (found.pixels, found.pixels_not_predicted) == (truth.size, 0)
    opened = wsi_unet.evaluate(wsi_unet.open_labels(store), tmp_path / "t.png", **kind)
    assert opened.pixels_not_predicted == (~inside).sum()


@settings(max_examples=30)
@given(
    arrays(np.uint8, (12, 15), elements=st.integers(0, 2)),
    arrays(np.uint8, (12, 15), elements=st.integers(0, 2)),
)
def test_any_pair_of_arrays_can_be_evaluated(truth: NDArray[Any], prediction: NDArray[Any]) -> None:
    pair = [xr.DataArray(labels, dims=("y", "x")) for labels in (prediction, truth)]
    for options in ({}, {"instances": True}, {"em": True}):
        found = wsi_unet.evaluate(*pair, **options)  # type: ignore[arg-type]
        document = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert document["pixels"] == truth.size
        assert found.kind == document["kind"]
    assert 0 <= found.pixel_error <= 1


def test_real_annotations(shared_data: Path, make_store: Any) -> None:
    path = shared_data / "annotations" / "CMU-1-Small-Region_regions.dsa.geojson"
    labels = np.zeros((2967, 2220), np.uint8)
    labels[512:1333, 512:1333] = 1
    labels[1512:2333, 1512:2220] = 2
    store = make_store(labels, classes=("background", "other", "tumor"))
    found = wsi_unet.evaluate(store, path, within=path)
    assert found.pixel_error == 0
    assert found.pixels == 821 * 821 + 821 * (2220 - 1512)

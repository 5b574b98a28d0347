"""Pairs that can't be compared are refused in one line with advice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
from PIL import Image
from support.labelled import blobs, rectangle, write_geojson

import wsi_unet
from wsi_unet.geometry import Box

SHAPE = (60, 80)
INSIDE = rectangle(Box(10, 10, 30, 30))


def image(path: Path, labels: Any) -> Path:
    Image.fromarray(labels).save(path)
    return path


def refused(match: str, *pair: Any, **options: Any) -> None:
    with pytest.raises(wsi_unet.WsiUnetError, match=match) as caught:
        wsi_unet.evaluate(*pair, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_pairs_that_dont_fit(tmp_path: Path, make_store: Any) -> None:
    store = make_store(blobs(SHAPE))
    other = make_store(blobs((90, 80)), "b.ome.zarr", mpp=None, slide="other")
    refused("differ in size", store, other)
    refused("differ in size", store, image(tmp_path / "a.png", blobs((60, 81))))
    refused("aren't finished", make_store(blobs(SHAPE), "c.ome.zarr", finished=False), store)
    refused("no output of wsi-unet|not written", tmp_path, store)
    refused("no labels 'x'|are no labels", store, store, label="x")


def test_annotations_that_dont_fit(tmp_path: Path, make_store: Any) -> None:
    store = make_store(blobs(SHAPE))
    outside = write_geojson(
        tmp_path / "o.geojson", [("nucleus", INSIDE), ("tumour", rectangle(Box(5, 90, 9, 99)))]
    )
    refused(r"annotation 2 \('tumour', x 90 to 99, y 5 to 9\) lies outside", store, outside)
    refused("lies outside", store, store, within=outside)
    misspelt = write_geojson(tmp_path / "m.geojson", [("Nuclues", INSIDE)])
    refused(r"'Nuclues' is none of .*did you mean 'nucleus'\?", store, misspelt)
    refused("did you mean 'Nuclues'", store, misspelt, ignore=["nuclue"])
    nameless = write_geojson(tmp_path / "n.geojson", [(None, INSIDE)])
    refused(r"'unclassified' is none of .*`classes` \(unclassified=VALUE\)", store, nameless)
    assert wsi_unet.evaluate(store, nameless, classes={"unclassified": 1}).pixels == 4800
    refused(
        "say which is which with `classes`: Nuclues=VALUE",
        image(tmp_path / "p.png", blobs(SHAPE)),
        misspelt,
    )
    refused("can't be read", store, store, within=tmp_path / "missing.geojson")
    refused("no class 7 to ignore", store, nameless, ignore=[7])


def test_values_that_are_no_class(tmp_path: Path, make_store: Any) -> None:
    labels = blobs(SHAPE)
    odd = labels.copy()
    odd[3, 4:9] = 77
    store, truth = make_store(labels), image(tmp_path / "t.png", odd)
    refused("5 px have the value 77.*`ignore=77`", store, truth)
    assert wsi_unet.evaluate(store, truth, ignore=[77]).pixels == labels.size - 5
    ids = image(tmp_path / "i.png", odd.astype(np.uint16) * 9)
    refused("holds the value 693.*`instances=True`", ids, truth)
    refused("holds the value 693.*`instances=True`", store, ids)
    negative = xr.DataArray(odd.astype(int) - 5, dims=("y", "x"))
    refused("holds -5; labels are 0 or more", negative, truth)
    refused("float64", negative / 2, truth)


def test_files_that_are_no_labels(tmp_path: Path, make_store: Any) -> None:
    labels = blobs(SHAPE)
    store = make_store(labels)
    image(tmp_path / "rgb.png", np.dstack([labels] * 3))
    tifffile.imwrite(tmp_path / "float.tif", labels.astype(np.float32))
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([labels] * 5), photometric="minisblack")
    image(tmp_path / "a.jpg", labels)
    whole = image(
        tmp_path / "whole.png", np.random.default_rng(0).integers(0, 9, (99, 99), np.uint8)
    )
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "cut.tif").write_bytes(b"II*\0" + bytes(50))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "broken.geojson").write_text('{"type": ')
    for name, match in (
        ("rgb.png", "3 channels"),
        ("float.tif", "float32; labels are whole numbers"),
        ("stack.tif", "one plane"),
        ("a.jpg", "neither a label OME-Zarr nor a PNG or TIFF"),
        ("cut.png", "can't be decoded"),
        ("cut.tif", "one plane"),
        ("empty.png", "neither a label"),
        ("missing.png", "can't be read: No such file"),
        ("broken.geojson", "isn't valid GeoJSON"),
    ):
        refused(match, store, tmp_path / name)


def test_nothing_to_compare(tmp_path: Path, make_store: Any) -> None:
    store = make_store(blobs(SHAPE))
    refused("region 80,0,9,9 lies outside", store, store, region=(80, 0, 9, 9))
    within = write_geojson(tmp_path / "w.geojson", [(None, INSIDE)])
    refused("no part of it lies in the regions", store, store, within=within, region=(50, 40, 9, 9))
    every = ["background", "nucleus", "tumour"]
    refused("no pixel in common", store, store, ignore=every)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"instances": True, "em": True}, "choose one"),
        ({"em": True, "classes": {"a": 1}}, "whatever their class"),
        ({"tolerance": -1.0}, "choose 0 to"),
        ({"tolerance": float("nan")}, "choose 0 to"),
        ({"classes": {"a": "nuclei"}}, "no class 'nuclei'; did you mean 'nucleus'"),
        ({"classes": {"a": 256}}, "0 to 255"),
        ({"ignore": ["nuclei"]}, "no class 'nuclei' to ignore; did you mean 'nucleus'"),
    ],
)
def test_options_that_cant_be(make_store: Any, options: dict[str, Any], match: str) -> None:
    store = make_store(blobs(SHAPE))
    refused(match, store, store, **options)


def test_too_much_for_thinning_at_once(monkeypatch: pytest.MonkeyPatch, make_store: Any) -> None:
    monkeypatch.setattr("wsi_unet.evaluation.scoring.MAX_SEGMENT_PIXELS", 1000)
    store = make_store(blobs(SHAPE))
    refused("give a `region`", store, store, em=True)
    assert wsi_unet.evaluate(store, store, em=True, region=(0, 0, 20, 20)).pixels == 400


def test_given_classes_without_a_pixel_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A class by a wrong value would score 0, or nothing, unsaid."""
    values = np.zeros((40, 50), np.uint8)
    values[5:20, 5:20] = 2
    one, two = (image(tmp_path / name, values) for name in ("a.png", "b.png"))
    wsi_unet.evaluate(one, two, classes={"x": 1, "y": 2})
    assert f"class 'x' (value 1) is nowhere in {one} and {two}, so it has no score" in caplog.text
    assert "'y'" not in caplog.text
    caplog.clear()
    values[30:, 40:] = 7  # in the truth only
    image(two, values)
    wsi_unet.evaluate(one, two, classes={"x": 7, "y": 2})
    assert f"class 'x': {one} has no pixel of value 7; check `classes`" in caplog.text
    caplog.clear()
    wsi_unet.evaluate(one, two, classes={"y": 2}, ignore=[7])
    assert not [record for record in caplog.records if record.name == "wsi_unet"]


def test_a_value_that_the_model_has_not_is_refused(make_store: Any) -> None:
    store = make_store(blobs(SHAPE))
    refused(r"x=9: .* has no class of value 9 \(", store, store, classes={"x": 9})

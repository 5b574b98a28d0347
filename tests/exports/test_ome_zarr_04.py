"""OME-Zarr 0.4 as zarr-python, the validator and napari's reader read it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from exports.results import (
    LABELS,
    SHAPE,
    add_image,
    add_probabilities,
    make_result,
    read_levels,
)
from numpy.typing import NDArray
from support.labelled import blobs, write_store

import wsi_unet
from wsi_unet import ExportOptions, OutputError
from wsi_unet.geometry import Box
from wsi_unet.slides import open_slide

REGION = [100, 40, 500, 900]


def _inside(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return labels without what lies outside the region, which a run wouldn't have."""
    inside = np.zeros_like(labels)
    inside[100:500, 40:900] = labels[100:500, 40:900]
    return inside


def _export(result: Path, folder: Path, **options: Any) -> Path:
    path = folder / "out.ome.zarr"
    wsi_unet.export(result, "ome-zarr-0.4", path, options=ExportOptions(**options))
    return path


def _read_levels(path: Path, group: str) -> list[NDArray[Any]]:
    opened = zarr.open_group(path, mode="r", path=group, zarr_format=2)
    (multiscale,) = _read_attributes(path, group)["multiscales"]
    return [_read(opened, dataset["path"]) for dataset in multiscale["datasets"]]


def _read(group: zarr.Group, name: str) -> NDArray[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...])


def _assert_equal(found: list[NDArray[Any]], expected: list[NDArray[Any]]) -> None:
    assert [level.shape for level in found] == [level.shape for level in expected]
    assert all(map(np.array_equal, found, expected))


def _read_attributes(path: Path, group: str) -> dict[str, Any]:
    attributes: dict[str, Any] = json.loads((path / group / ".zattrs").read_text())
    return attributes


def _read_own_attributes(path: Path, group: str) -> dict[str, Any]:
    document = json.loads((path / group / "zarr.json").read_text())
    attributes: dict[str, Any] = document["attributes"]["ome"]
    return attributes


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A result with all that can be exported; the model looked at a region."""
    path = tmp_path / "full.ome.zarr"
    make_result(path, labels=_inside(LABELS), regions=[REGION], mpp=(0.25, 0.5))
    wsi_unet.find_objects(path, object_labels=True)
    add_probabilities(path)
    add_image(path)
    return path


@pytest.mark.parametrize("shape", [(700, 1100), (1, 1), (513, 40), (512, 2600)])
def test_labels_are_those_of_the_result(shape: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    write_store(path, blobs(shape), downsample=(1.5, 3.25), mpp=(0.25, 0.5))
    exported = _export(path, tmp_path)
    _assert_equal(_read_levels(exported, "labels/nuclei"), read_levels(path))
    (found,) = _read_attributes(exported, "labels/nuclei")["multiscales"]
    (own,) = _read_own_attributes(path, "labels/nuclei")["multiscales"]
    assert found == {"version": "0.4", **own}
    label = _read_attributes(exported, "labels/nuclei")["image-label"]
    own_label = _read_own_attributes(path, "labels/nuclei")["image-label"]
    assert label == {"version": "0.4", **own_label}


def test_every_array_is_that_of_the_result(full: Path, tmp_path: Path) -> None:
    exported = _export(full, tmp_path)
    _assert_equal(_read_levels(exported, "labels/nuclei"), read_levels(full))
    for level, numbers in enumerate(_read_levels(exported, "labels/nuclei.objects")):
        own = zarr.open_array(full / "labels/nuclei.objects", path=str(level), mode="r")
        assert numbers.dtype == np.uint32
        assert np.array_equal(numbers, np.asarray(own[...]))
    for level, pixels in enumerate(_read_levels(exported, "probability/nuclei")):
        stored = wsi_unet.open_probabilities(full, level=level).to_numpy()
        assert np.array_equal(pixels[:3], stored)
        looked = wsi_unet.open_labels(full, level=level).predicted.to_numpy()
        assert np.array_equal(pixels[3], np.where(looked, 0, 255))
    for level, pixels in enumerate(_read_levels(exported, "")):
        image = zarr.open_array(full, path=str(level), mode="r")
        assert np.array_equal(pixels, np.asarray(image[...]))


def test_where_the_model_did_not_look_is_no_background(full: Path, tmp_path: Path) -> None:
    exported = _export(full, tmp_path)
    label = _read_attributes(exported, "labels/nuclei")["image-label"]
    assert label["properties"][-1] == {"label-value": 255, "class": "not predicted"}
    assert label["colors"][-1] == {"label-value": 255, "rgba": [200, 200, 200, 128]}
    (finest, *_) = _read_levels(exported, "labels/nuclei")
    outside = np.ones(SHAPE, np.bool_)
    outside[100:500, 40:900] = False
    assert np.array_equal(finest == 255, outside)
    channels = _read_attributes(exported, "probability/nuclei")["omero"]["channels"]
    names = ["background", "nucleus", "tumour", "not predicted"]
    assert [each["label"] for each in channels] == names
    assert [each["active"] for each in channels] == [False, True, True, False]


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("mpp", [None, (0.25, 0.5)])
def test_every_group_is_valid(mpp: tuple[float, float] | None, image: bool, tmp_path: Path) -> None:
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.v04 import Image, ImageLabel, Labels

    path = tmp_path / "slide.ome.zarr"
    make_result(path, labels=_inside(LABELS), regions=[REGION], mpp=mpp, downsample=(1.5, 3.25))
    wsi_unet.find_objects(path, object_labels=True)
    add_probabilities(path)
    if image:
        add_image(path)
    exported = _export(path, tmp_path)
    root = zarr.open_group(exported, mode="r", zarr_format=2)
    expected = {
        "labels": Labels,
        "labels/nuclei": ImageLabel,
        "labels/nuclei.objects": ImageLabel,
        "probability/nuclei": Image,
    }
    for name, kind in expected.items():
        group = root[name]
        assert isinstance(group, zarr.Group)
        assert isinstance(open_ome_zarr(group), kind)
    if image:
        assert isinstance(open_ome_zarr(root), Image)


def test_napari_shows_image_and_labels(full: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of napari's own imports
        from napari_ome_zarr._reader import napari_get_reader

        reader = napari_get_reader(str(_export(full, tmp_path)))
        layers = reader(str(tmp_path / "out.ome.zarr"))
    assert [kind for *_, kind in layers] == ["image", "labels", "labels"]
    _assert_equal([np.asarray(level) for level in layers[1][0]], read_levels(full))


def test_our_own_reader_opens_the_image(full: Path, tmp_path: Path) -> None:
    exported = _export(full, tmp_path)
    levels = _read_levels(exported, "")
    with open_slide(exported) as slide:
        assert slide.mpp is not None
        assert (slide.mpp.y, slide.mpp.x) == (0.25, 0.5)
        for number, pixels in enumerate(levels):
            whole = Box.from_shape(slide.levels[number].shape)
            assert np.array_equal(slide.read(number, whole), np.moveaxis(pixels, 0, -1))


def test_chunks_are_what_java_reads(full: Path, tmp_path: Path) -> None:
    exported = _export(full, tmp_path)
    expected = {
        "0": ([3, 512, 512], "|u1"),
        "labels/nuclei/1": ([512, 512], "|u1"),
        "labels/nuclei.objects/0": ([512, 512], "<u4"),
        "probability/nuclei/0": ([1, 512, 512], "|u1"),
    }
    for name, (chunks, dtype) in expected.items():
        found = json.loads((exported / name / ".zarray").read_text())
        assert (found["chunks"], found["dtype"]) == (chunks, dtype)
        assert found["compressor"]["id"] == "zlib"
        assert found["dimension_separator"] == "/"


def test_chunks_without_anything_are_not_stored(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    labels = np.zeros((1100, 1100), np.uint8)
    labels[600, 700] = 1
    write_store(path, labels)
    exported = _export(path, tmp_path)
    files = {
        file.relative_to(exported).as_posix()
        for file in (exported / "labels/nuclei/0").rglob("*")
        if file.is_file()
    }
    assert files == {"labels/nuclei/0/.zarray", "labels/nuclei/0/1/1"}


def test_all_label_groups_or_one_are_written(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    write_store(path, LABELS, name="first")
    write_store(path, np.flipud(LABELS), name="second")
    exported = _export(path, tmp_path)
    assert _read_attributes(exported, "labels") == {"labels": ["first", "second"]}
    for name in ("first", "second"):
        _assert_equal(_read_levels(exported, f"labels/{name}"), read_levels(path, name))
    _export(path, tmp_path, label="second")  # in place of the other
    assert _read_attributes(exported, "labels") == {"labels": ["second"]}
    assert not (exported / "labels" / "first").exists()


def test_attributes_say_where_it_comes_from(full: Path, tmp_path: Path) -> None:
    said = _read_attributes(_export(full, tmp_path), "")["wsi_unet"]
    assert said["creator"] == "wsi-unet"
    assert said["groups"][0]["label"] == "nuclei"
    assert said["groups"][0]["rules"]["nucleus"]["split"] == "none"


def test_numbers_of_other_objects_are_refused(full: Path, tmp_path: Path) -> None:
    document = full / "labels" / "nuclei.objects" / "zarr.json"
    attributes = json.loads(document.read_text())
    attributes["attributes"]["wsi_unet"]["signature"] = "0" * 64
    document.write_text(json.dumps(attributes))
    with pytest.raises(OutputError, match="shows other objects than the table has; find objects"):
        _export(full, tmp_path)
    assert not (tmp_path / "out.ome.zarr").exists()


@pytest.mark.parametrize("lost", ["labels/nuclei/0/c/0/0", "labels/nuclei.objects/0/c/0/0"])
def test_lost_shards_are_no_background(lost: str, full: Path, tmp_path: Path) -> None:
    (full / lost).unlink()
    with pytest.raises(OutputError, match="is missing"):
        _export(full, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"full.ome.zarr"}

"""Unusable data: one line that names the file, or the recipe's key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.labelled import rectangle, write_geojson, write_store
from support.training_data import (
    CELL,
    GROUND,
    INSTANCES,
    make_image,
    make_recipe,
    save,
    write_pairs,
)

from wsi_unet.errors import InputError, OutputError
from wsi_unet.geometry import Box
from wsi_unet.training.dataset import open_fields, split_fields

SHAPE = (40, 50)


def refusal(folder: Path, data: dict[str, Any], **sections: Any) -> str:
    with pytest.raises((InputError, OutputError)) as caught:
        open_fields(make_recipe(data, **sections), folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pairs(tmp_path, [SHAPE, SHAPE, SHAPE])
    save(tmp_path / "one.png", make_image(SHAPE))
    write_geojson(tmp_path / "one.geojson", [("cell", rectangle(Box(3, 4, 20, 30)))])
    return tmp_path


ONE = {"images": "one.png", "labels": "one.geojson"}


@pytest.mark.parametrize(
    ("images", "match"),
    [
        ("nothing/*.png", "data.0.images: no image matches 'nothing/*.png' in"),
        ("nothing", "no image matches 'nothing'"),
        ("instances/*.tif", "no image matches"),
        (".", "no file with the stem of 1 of 1 image "),
    ],
)
def test_images_that_arent_there(folder: Path, images: str, match: str) -> None:
    assert match in refusal(folder, {"images": images, "labels": "instances"})


def test_an_empty_folder(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("x")
    assert "no image matches 'empty'" in refusal(folder, {**INSTANCES, "images": "empty"})
    message = refusal(folder, {**INSTANCES, "labels": "empty"})
    assert "data.0.labels: no file with the stem of 3 of 3 images" in message
    assert "first 0.png" in message


def test_images_without_labels_are_counted(folder: Path) -> None:
    (folder / "instances" / "1.png").unlink()
    assert "no file with the stem of 1 of 3 images" in (message := refusal(folder, INSTANCES))
    assert "first 1.png" in message
    assert "data.0.labels: there is no 'nowhere'" in refusal(
        folder, {**INSTANCES, "labels": "nowhere"}
    )
    assert "is one file, but there are 3 images" in refusal(
        folder, {**INSTANCES, "labels": "instances/0.png"}
    )


def test_what_belongs_together_must_be_clear(folder: Path) -> None:
    save(folder / "instances" / "2.tif", make_image(SHAPE)[..., 0])
    assert "both 2.png and 2.tif" in refusal(folder, INSTANCES)
    (folder / "instances" / "2.tif").unlink()
    save(folder / "images" / "2.jpg", make_image(SHAPE))
    assert "have the same stem" in refusal(folder, INSTANCES)


def test_sizes_must_agree(folder: Path) -> None:
    save(folder / "instances" / "1.png", np.zeros((41, 50), np.uint8))
    message = refusal(folder, INSTANCES)
    assert "1.png: the labels have 50 x 41 px and their image 50 x 40" in message


def test_values_outside_of_the_classes(folder: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, :7] = 9
    save(folder / "one-truth.png", labels)
    data = {"images": "one.png", "labels": "one-truth.png"}
    message = refusal(folder, data)
    assert "one-truth.png: 7 px have the value 9, which is none of the classes' (0, 1)" in message
    assert "ignore = [9]" in message
    # Also where the pixel is one that isn't looked at, as the image is reduced.
    assert "7 px have the value 9" in refusal(folder, {**data, "mpp": 0.1}, mpp=0.9)


def test_negative_values(folder: Path) -> None:
    import tifffile

    tifffile.imwrite(folder / "t.tif", np.full(SHAPE, -2, np.int16))
    for kind in ("classes", "instances"):
        data = {"images": "one.png", "labels": "t.tif", "kind": kind}
        assert "2000 px have the value -2" in refusal(folder, data)


@pytest.mark.parametrize(
    ("classes", "match"),
    [
        ([GROUND, {**CELL, "values": [1]}, {**CELL, "name": "x"}], "'ground' and 'x' have no val"),
        (
            [{**GROUND, "values": [0, 1]}, {**CELL, "values": [1]}],
            "'ground' and 'cell' both have the value 1",
        ),
    ],
)
def test_values_must_be_of_one_class(folder: Path, classes: Any, match: str) -> None:
    data = {"images": "images/0.png", "labels": "instances/0.png"}
    assert match in refusal(folder, data, classes=classes)


def test_instances_are_of_one_class(folder: Path) -> None:
    three = [GROUND, CELL, {**CELL, "name": "gland"}]
    message = refusal(folder, INSTANCES, classes=three)
    assert 'data.0.kind: "instances" need one class besides the background' in message
    assert "'cell', 'gland'" in message


def test_class_names_that_nobody_knows(folder: Path) -> None:
    boxes = [("Cel", Box(3, 4, 20, 30)), ("x", Box(0, 0, 3, 3)), ("cell", Box(0, 0, 2, 2))]
    write_geojson(folder / "one.geojson", [(name, rectangle(box)) for name, box in boxes])
    message = refusal(folder, ONE)
    assert "one.geojson: the classes 'Cel', 'x' are none of the recipe's ('ground', 'cell')" in (
        message
    )
    assert "did you mean 'cell'?" in message
    assert "annotations = […]" in message
    write_store(folder / "t.ome.zarr", np.zeros(SHAPE, np.uint8), classes=("background", "Gland"))
    message = refusal(folder, {"images": "one.png", "labels": "t.ome.zarr"})
    assert "t.ome.zarr: the class 'Gland' is none of the recipe's" in message


def test_two_classes_with_one_annotation(folder: Path) -> None:
    classes = [GROUND, CELL, {"name": "x", "color": "#000000", "annotations": ["Cell"]}]
    assert "annotations named 'Cell' are both 'cell' and 'x'" in refusal(
        folder, ONE, classes=classes
    )


def test_ignoring_what_isnt_there(folder: Path) -> None:
    message = refusal(folder, {**ONE, "ignore": ["cels"]})
    assert (
        "data.0.ignore: no truth has a class 'cels'; the classes are 'cell'; did you mean"
        in message
    )
    message = refusal(folder, {**INSTANCES, "ignore": ["edge"]})
    assert "'edge' is a name, but label images have values" in message


def test_outlines_outside_of_the_image(folder: Path) -> None:
    write_geojson(folder / "one.geojson", [("cell", rectangle(Box(100, 4, 120, 30)))])
    message = refusal(folder, ONE)
    assert "one.geojson: annotation 1 ('cell', x 4 to 30, y 100 to 120) lies outside" in message
    write_geojson(folder / "one.geojson", [("cell", rectangle(Box(3, 4, 20, 30)))])
    write_geojson(folder / "in.geojson", [("x", rectangle(Box(3, 400, 20, 430)))])
    assert "in.geojson: annotation 1" in refusal(folder, {**ONE, "within": "in.geojson"})


def test_polygons_that_cross_themselves_need_no_repair(folder: Path) -> None:
    bow = [[[10, 5], [30, 25], [30, 5], [10, 25], [10, 5]]]
    write_geojson(folder / "one.geojson", [("cell", bow), ("cell", rectangle(Box(30, 2, 35, 9)))])
    (field,) = open_fields(make_recipe(ONE), folder)
    assert field.amounts[1] == pytest.approx(200 + 35, abs=20)


def test_no_pixel_size(folder: Path) -> None:
    message = refusal(folder, INSTANCES, mpp=0.5)
    assert "0.png: has no pixel size, which is needed to train at 0.5 µm" in message
    assert "data.0.mpp" in message
    assert "data.0.object_diameter" in message
    assert "outside 0.02 to 100 µm" in refusal(folder, {**INSTANCES, "mpp": 264.6}, mpp=0.5)


def test_object_diameter_needs_objects_and_a_pixel_size_to_train_at(folder: Path) -> None:
    data = {**INSTANCES, "object_diameter": 6.5}
    assert "give the recipe an mpp" in refusal(folder, data)
    assert "give the recipe an mpp" in refusal(folder, {**data, "mpp": 0.5}, mpp=0.5)
    save(folder / "instances" / "1.png", np.zeros(SHAPE, np.uint8))
    assert "1.png: there is no object in it" in refusal(folder, data, mpp=0.5)
    write_store(folder / "t.ome.zarr", np.zeros(SHAPE, np.uint8), classes=("background", "cell"))
    data = {"images": "one.png", "labels": "t.ome.zarr", "object_diameter": 6.5}
    assert "give mpp instead of object_diameter" in refusal(folder, data, mpp=0.5)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x89PNG\r\n\x1a\n\0\0\0"])
def test_files_that_cant_be_read(folder: Path, content: bytes) -> None:
    (folder / "images" / "1.png").write_bytes(content)
    assert "1.png" in refusal(folder, INSTANCES)
    save(folder / "images" / "1.png", make_image(SHAPE))
    (folder / "instances" / "1.png").write_bytes(content)
    assert "1.png" in refusal(folder, INSTANCES)


def test_files_that_end_too_early(folder: Path) -> None:
    for kind in ("images", "instances"):
        path = folder / kind / "2.png"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert "2.png" in refusal(folder, INSTANCES)
        path.write_bytes(whole)


def test_colours_are_no_labels(folder: Path) -> None:
    Image.fromarray(make_image(SHAPE)).save(folder / "instances" / "0.png")
    assert "0.png: has 3 channels" in refusal(folder, INSTANCES)


def test_label_zarrs_that_dont_fit(folder: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    data = {"images": "one.png", "labels": "t.ome.zarr"}
    names = ("background", "cell")
    write_store(folder / "t.ome.zarr", labels, classes=names, slide_shape=(77, 99))
    assert "these are labels of another slide than" in refusal(folder, data)
    write_store(folder / "u.ome.zarr", labels, classes=names, finished=False)
    assert "aren't finished" in refusal(folder, {**data, "labels": "u.ome.zarr"})
    (folder / "v.ome.zarr").mkdir()
    assert "v.ome.zarr" in refusal(folder, {**data, "labels": "v.ome.zarr"})
    write_store(folder / "u.ome.zarr", labels, classes=names, name="second")
    assert "nuclei, second" in refusal(folder, {**data, "labels": "u.ome.zarr"})


def test_patients(folder: Path) -> None:
    assert "'[' isn't a regular expression" in refusal(folder, {**INSTANCES, "group": "["})
    assert "'x' has no group" in refusal(folder, {**INSTANCES, "group": "x"})
    message = refusal(folder, {**INSTANCES, "group": "^([01])"})
    assert "data.0.group: '^([01])' finds no patient in '2'" in message
    fields = open_fields(make_recipe({**INSTANCES, "group": "^([01]|.)"}), folder)
    assert [field.patient for field in fields] == ["0", "1", "2"]


def test_a_class_that_nothing_is_of(folder: Path) -> None:
    classes = [GROUND, CELL, {"name": "gland", "color": "#000000"}]
    recipe = make_recipe(ONE, classes=classes)
    with pytest.raises(InputError, match=r"classes: no pixel .* is of the class 'gland'"):
        split_fields(recipe, open_fields(recipe, folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"images": "~no-such-user/a.png"},
        {"images": "a\0.png"},
        {"labels": "~no-such-user/t"},
        {"labels": "t\0"},
        {"group": "(a{99999999999999999999})"},
        {"group": "(" * 5000 + ")" * 5000},
    ],
)
def test_whatever_a_recipe_names_is_refused_in_one_line(
    folder: Path, changes: dict[str, str]
) -> None:
    assert refusal(folder, ONE | changes).startswith("data.0")


def test_labels_whose_meaning_is_unclear_are_refused(folder: Path) -> None:
    labels = np.zeros(SHAPE, np.bool_)
    labels[3:9, 4:20] = True
    tifffile.imwrite(folder / "t.tif", labels)  # white is zero, as tifffile writes it
    data = {"images": "one.png", "labels": "t.tif", "kind": "instances"}
    assert "t.tif: stores white as zero" in refusal(folder, data)


def test_outlines_that_cover_nothing_are_left_out_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    document = json.loads((folder / "one.geojson").read_text())
    features = document["features"] if isinstance(document, dict) else document
    features.append({**features[0], "geometry": {"type": "Polygon", "coordinates": [[]]}})
    (folder / "two.geojson").write_text(json.dumps(document))
    (field,) = open_fields(make_recipe({"images": "one.png", "labels": "two.geojson"}), folder)
    assert "1 outline that covers nothing is left out, in feature 2 ('cell')" in caplog.text
    assert (field.read(Box(0, 0, *SHAPE)).labels == 1).sum() == 17 * 26

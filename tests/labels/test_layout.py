from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.layout import (
    Frame,
    check_name,
    check_output,
    create_image,
    create_labels,
    create_probabilities,
    ensure_root,
    finish_labels,
    group_attributes,
    label_names,
    read_frame,
    remove_all,
    remove_labels,
    stored_levels,
    unfinish_labels,
)
from wsi_unet.labels.progress import BlockMarker, Progress, RunRecord
from wsi_unet.labels.pyramid import Pyramid
from wsi_unet.storage.store import LocalObjects, open_objects

PYRAMID = Pyramid((1300, 2100), 512)
FRAME = Frame.of((1, 1), (0.5, 0.25))


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjects:
    objects = LocalObjects(tmp_path / "out.ome.zarr")
    ensure_root(objects, {"slide": "a slide"})
    return objects


def tree(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def labels_of(objects: LocalObjects, name: str) -> dict[str, Any]:
    attributes = group_attributes(objects, f"labels/{name}")
    assert attributes is not None
    return attributes


# Frames


def test_pixel_centres_of_every_level_lie_where_their_slide_pixels_do() -> None:
    mpp, downsample = (0.5, 0.3), (4.0, 8.0)
    for level in range(4):
        frame = Frame.of(downsample, mpp).level(level)
        for axis in (0, 1):
            covered = downsample[axis] * 2**level
            centre = np.mean([mpp[axis] * pixel for pixel in range(int(covered))])
            assert frame.scale[axis] == pytest.approx(covered * mpp[axis])
            assert frame.translation[axis] == pytest.approx(centre)


def test_an_unknown_mpp_gives_slide_pixels() -> None:
    frame = Frame.of((2, 2), None)
    assert frame == Frame((2.0, 2.0), (0.5, 0.5), None)
    assert frame.area_mm2(5) is None
    assert FRAME.area_mm2(8_000_000) == 1.0


# Whose folder it is


def test_a_new_or_empty_folder_becomes_ours(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "new", tmp_path / "empty"):
        objects = open_objects(path)
        assert not check_output(objects)
        ensure_root(objects, {"slide": "first"})
        assert check_output(objects)
        create_labels(objects, "nuclei", PYRAMID, FRAME, [], {})
        ensure_root(objects, {"slide": "second"})
        root = group_attributes(objects, "")
        assert root == {"wsi_unet": {"format_version": 1, "slide": "first"}}


def test_a_start_that_was_killed_early_is_no_foreign_folder(tmp_path: Path) -> None:
    objects = open_objects(tmp_path)
    objects.put(".wsi_unet/nuclei/lock", b"")
    assert not check_output(objects)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'),
        ("zarr.json", b'{"zarr_format": 3, "node_type": "group"}'),
        ("zarr.json", b'{"attributes": {"wsi_unet": 3}}'),
        ("zarr.json", b"[]"),
        ("zarr.json", b"torn"),
        (".zgroup", b'{"zarr_format": 2}'),
        ("thesis.docx", b"years of work"),
        ("a/b/c", b"deep"),
    ],
)
def test_what_is_not_ours_is_refused_and_left_alone(
    tmp_path: Path, name: str, content: bytes
) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"(by wsi-unet|did not write); choose") as caught:
        ensure_root(open_objects(tmp_path), {})
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    attributes = {"wsi_unet": {"format_version": 2}}
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    with pytest.raises(OutputError, match="format version 2, this wsi-unet knows 1"):
        check_output(open_objects(tmp_path))


# Groups


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x", "image", "zarr.json", "a b", "x" * 65])
def test_names_that_are_no_folder_names_are_refused(objects: LocalObjects, name: str) -> None:
    before = tree(objects.root)
    for attempt in (
        lambda: check_name(name),
        lambda: create_labels(objects, name, PYRAMID, FRAME, [], {}),
        lambda: remove_labels(objects, name),
    ):
        with pytest.raises(OptionError, match="can't name a label group"):
            attempt()
    assert tree(objects.root) == before


def test_a_second_label_group_keeps_the_first(objects: LocalObjects) -> None:
    create_labels(objects, "nuclei", PYRAMID, FRAME, [], {"model": "one"})
    first = tree(objects.root / "labels" / "nuclei")
    create_labels(objects, "tumour", PYRAMID, FRAME, [], {"model": "two"})
    create_labels(objects, "tumour", PYRAMID, FRAME, [], {"model": "two"})
    assert tree(objects.root / "labels" / "nuclei") == first
    assert label_names(objects) == ["nuclei", "tumour"]
    assert group_attributes(objects, "labels") == {
        "ome": {"version": "0.5", "labels": ["nuclei", "tumour"]},
        "labels": ["nuclei", "tumour"],
    }
    assert labels_of(objects, "tumour")["wsi_unet"] == {"model": "two", "finished": None}


def test_the_source_is_named_only_where_there_is_an_image(objects: LocalObjects) -> None:
    create_labels(objects, "nuclei", PYRAMID, FRAME, [], {})
    assert "source" not in labels_of(objects, "nuclei")["ome"]["image-label"]
    assert "ome" not in (group_attributes(objects, "") or {})

    create_image(objects, "slide", Pyramid((325, 525), 512, PYRAMID.levels), FRAME)
    create_labels(objects, "tumour", PYRAMID, FRAME, [], {})
    for name in ("nuclei", "tumour"):
        source = labels_of(objects, name)["ome"]["image-label"]["source"]
        assert source == {"image": "../../"}
    root = group_attributes(objects, "") or {}
    assert root["wsi_unet"] == {"format_version": 1, "slide": "a slide"}


def test_everything_has_the_same_number_of_levels(objects: LocalObjects) -> None:
    assert stored_levels(objects) is None
    create_labels(objects, "nuclei", PYRAMID, FRAME, [], {})
    assert stored_levels(objects) == PYRAMID.levels == 4
    before = tree(objects.root)
    with pytest.raises(OutputError, match="has 4 levels, not 3"):
        create_labels(objects, "tumour", Pyramid((1300, 2100), 512, 3), FRAME, [], {})
    with pytest.raises(OutputError, match="has 4 levels, not 1"):
        create_image(objects, "slide", Pyramid((325, 512), 512), FRAME)
    assert tree(objects.root) == before


def test_the_frame_is_read_back(objects: LocalObjects) -> None:
    create_labels(objects, "nuclei", PYRAMID, FRAME, [], {})
    create_image(objects, "slide", PYRAMID, FRAME)
    for level in range(PYRAMID.levels):
        assert read_frame(labels_of(objects, "nuclei"), level) == FRAME.level(level)
        assert read_frame(group_attributes(objects, "") or {}, level) == FRAME.level(level)


def test_finishing_records_what_was_found(objects: LocalObjects, make_output: Any) -> None:
    output = make_output()
    finish_labels(output.objects, "nuclei", (2_000_000, 8_000_000), "2026-01-02T03:04:05Z")
    attributes = labels_of(output.objects, "nuclei")
    assert attributes["wsi_unet"] == {"model": "a model", "finished": "2026-01-02T03:04:05Z"}
    assert attributes["ome"]["image-label"]["properties"] == [
        {"label-value": 0, "class": "background", "pixels": 2_000_000, "area_mm2": 0.25},
        {"label-value": 1, "class": "nucleus", "pixels": 8_000_000, "area_mm2": 1.0},
        {"label-value": 2, "class": "tumour", "pixels": 0, "area_mm2": 0.0},
    ]
    unfinish_labels(output.objects, "nuclei")
    attributes = labels_of(output.objects, "nuclei")
    assert attributes["wsi_unet"]["finished"] is None
    assert attributes["ome"]["image-label"]["properties"][1] == {
        "label-value": 1,
        "class": "nucleus",
    }
    with pytest.raises(OutputError, match="no labels 'other'"):
        finish_labels(objects, "other", (), "")


def test_areas_need_an_mpp(make_output: Any) -> None:
    output = make_output(mpp=None)
    finish_labels(output.objects, "nuclei", (1, 2, 3), "now")
    properties = labels_of(output.objects, "nuclei")["ome"]["image-label"]["properties"]
    assert properties[2] == {"label-value": 2, "class": "tumour", "pixels": 3}


def test_removing_a_label_group_removes_nothing_else(make_output: Any) -> None:
    output = make_output()
    objects = output.objects
    create_labels(objects, "tumour", output.pyramid, FRAME, [], {})
    create_probabilities(objects, "tumour", output.pyramid, FRAME, [], {})
    for name in ("nuclei", "tumour", "image"):
        progress = Progress(objects, name)
        progress.write_run(RunRecord(name=name, signature="", parameters={}, created=""))
        progress.write_marker(
            BlockMarker(block=(0, 0), signature="s", counts=(), seconds={}, attempts=1, shards={})
        )
    before = tree(objects.root)
    remove_labels(objects, "nuclei")
    gone = before.keys() - tree(objects.root).keys()
    root = objects.root
    expected = [
        path
        for path in before
        if any(
            Path(path).is_relative_to(root / folder)
            for folder in ("labels/nuclei", "probability/nuclei", ".wsi_unet/nuclei")
        )
    ]
    assert sorted(gone) == sorted(expected)
    assert label_names(objects) == ["tumour"]
    changed = [path for path, data in tree(root).items() if before[path] != data]
    assert changed == [str(root / "labels/zarr.json")]


@pytest.mark.parametrize("image", [False, True])
def test_removing_everything_leaves_a_root_of_ours_and_what_is_not_ours(
    make_output: Any, image: bool
) -> None:
    output = make_output(image=image)
    objects = output.objects
    note = output.path / "note.txt"
    note.write_text("looks good")
    run = RunRecord(name="nuclei", signature="", parameters={}, created="")
    Progress(objects, "nuclei").write_run(run)
    Progress(objects, "image").write_run(run)
    remove_all(objects)
    remove_all(objects)
    expected = [".wsi_unet/zarr.json", "note.txt", "zarr.json"]
    assert sorted(objects.list("")) == expected
    assert check_output(objects)
    assert stored_levels(objects) is None
    ensure_root(objects, {"slide": "another"})
    assert group_attributes(objects, "") == {"wsi_unet": {"format_version": 1, "slide": "another"}}


def test_damaged_metadata_is_one_clear_line(objects: LocalObjects) -> None:
    create_labels(objects, "nuclei", PYRAMID, FRAME, [], {})
    objects.put("labels/nuclei/zarr.json", b"{")
    with pytest.raises(OutputError, match=r"'labels/nuclei/zarr\.json' is damaged"):
        finish_labels(objects, "nuclei", (), "")


def test_zarr_walks_the_whole_tree_without_a_warning(make_output: Any) -> None:
    output = make_output()
    Progress(output.objects, "nuclei").write_mask(np.ones((3, 3), bool))
    group = zarr.open_group(output.path, mode="r")
    members = dict(group.members(max_depth=None))
    assert {"0", "labels", "labels/nuclei/0", "probability/nuclei/3"} <= members.keys()
    assert str(group.tree())
    stored = members["labels/nuclei/0"]
    assert isinstance(stored, zarr.Array)
    assert stored.metadata.to_dict()["dimension_names"] == ("y", "x")

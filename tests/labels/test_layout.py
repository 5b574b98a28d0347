from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.contents import (
    holds_output,
    parse_frame,
    read_label_names,
    read_level_count,
)
from wsi_unet.labels.documents import read_group_attributes
from wsi_unet.labels.layout import (
    create_image,
    create_labels,
    create_probabilities,
    ensure_root,
    mark_finished,
    mark_unfinished,
    remove_all,
    remove_run,
)
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.names import check_label_name
from wsi_unet.labels.progress import BlockMarker, Progress, RunRecord
from wsi_unet.labels.pyramid import Pyramid
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.opening import open_store

PYRAMID = Pyramid((1300, 2100), 512)
FRAME = Frame.from_downsample((1, 1), (0.5, 0.25))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "out.ome.zarr")
    ensure_root(store, {"slide": {"name": "a slide"}})
    return store


def tree(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def labels_of(store: LocalStore, name: str) -> dict[str, Any]:
    attributes = read_group_attributes(store, f"labels/{name}")
    assert attributes is not None
    return attributes


# Frames


def test_pixel_centres_of_every_level_lie_where_their_slide_pixels_do() -> None:
    mpp, downsample = (0.5, 0.3), (4.0, 8.0)
    for level in range(4):
        frame = Frame.from_downsample(downsample, mpp).at_level(level)
        for axis in (0, 1):
            covered = downsample[axis] * 2**level
            centre = np.mean([mpp[axis] * pixel for pixel in range(int(covered))])
            assert frame.scale[axis] == pytest.approx(covered * mpp[axis])
            assert frame.translation[axis] == pytest.approx(centre)


def test_an_unknown_mpp_gives_slide_pixels() -> None:
    frame = Frame.from_downsample((2, 2), None)
    assert frame == Frame((2.0, 2.0), (0.5, 0.5), None)
    assert frame.area_mm2(5) is None
    assert FRAME.area_mm2(8_000_000) == 1.0


# Whose folder it is


def test_a_new_or_empty_folder_becomes_ours(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "new", tmp_path / "empty"):
        store = open_store(path)
        assert not holds_output(store)
        ensure_root(store, {"slide": {"name": "first"}})
        assert holds_output(store)
        create_labels(store, "nuclei", PYRAMID, FRAME, [], {})
        ensure_root(store, {"slide": {"name": "second"}})
        root = read_group_attributes(store, "")
        assert root == {"wsi_unet": {"format_version": 1, "slide": {"name": "first"}}}


def test_a_start_that_was_killed_early_is_no_foreign_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put(".wsi_unet/nuclei/lock", b"")
    assert not holds_output(store)


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
        ensure_root(open_store(tmp_path), {})
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    attributes = {"wsi_unet": {"format_version": 2}}
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    with pytest.raises(OutputError, match="format version 2, but this wsi-unet knows 1 only"):
        holds_output(open_store(tmp_path))


# Groups


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x", "image", "zarr.json", "a b", "x" * 65])
def test_names_that_are_no_folder_names_are_refused(store: LocalStore, name: str) -> None:
    before = tree(store.root)
    for attempt in (
        lambda: check_label_name(name),
        lambda: create_labels(store, name, PYRAMID, FRAME, [], {}),
        lambda: remove_run(store, name),
    ):
        with pytest.raises(OptionError, match="can't name a label group"):
            attempt()
    assert tree(store.root) == before


def test_a_second_label_group_keeps_the_first(store: LocalStore) -> None:
    create_labels(store, "nuclei", PYRAMID, FRAME, [], {"model": "one"})
    first = tree(store.root / "labels" / "nuclei")
    create_labels(store, "tumour", PYRAMID, FRAME, [], {"model": "two"})
    create_labels(store, "tumour", PYRAMID, FRAME, [], {"model": "two"})
    assert tree(store.root / "labels" / "nuclei") == first
    assert read_label_names(store) == ["nuclei", "tumour"]
    assert read_group_attributes(store, "labels") == {
        "ome": {"version": "0.5", "labels": ["nuclei", "tumour"]},
        "labels": ["nuclei", "tumour"],
    }
    assert labels_of(store, "tumour")["wsi_unet"] == {"model": "two", "finished": None}


def test_the_source_is_named_only_where_there_is_an_image(store: LocalStore) -> None:
    create_labels(store, "nuclei", PYRAMID, FRAME, [], {})
    assert "source" not in labels_of(store, "nuclei")["ome"]["image-label"]
    assert "ome" not in (read_group_attributes(store, "") or {})

    create_image(store, "slide", Pyramid((325, 525), 512, PYRAMID.levels), FRAME)
    create_labels(store, "tumour", PYRAMID, FRAME, [], {})
    for name in ("nuclei", "tumour"):
        source = labels_of(store, name)["ome"]["image-label"]["source"]
        assert source == {"image": "../../"}
    root = read_group_attributes(store, "") or {}
    assert root["wsi_unet"] == {"format_version": 1, "slide": {"name": "a slide"}}


def test_everything_has_the_same_number_of_levels(store: LocalStore) -> None:
    assert read_level_count(store) is None
    create_labels(store, "nuclei", PYRAMID, FRAME, [], {})
    assert read_level_count(store) == PYRAMID.levels == 4
    before = tree(store.root)
    with pytest.raises(OutputError, match="has 4 levels, not 3"):
        create_labels(store, "tumour", Pyramid((1300, 2100), 512, 3), FRAME, [], {})
    with pytest.raises(OutputError, match="has 4 levels, not 1"):
        create_image(store, "slide", Pyramid((325, 512), 512), FRAME)
    assert tree(store.root) == before


def test_the_frame_is_read_back(store: LocalStore) -> None:
    create_labels(store, "nuclei", PYRAMID, FRAME, [], {})
    create_image(store, "slide", PYRAMID, FRAME)
    for level in range(PYRAMID.levels):
        assert parse_frame(labels_of(store, "nuclei"), level) == FRAME.at_level(level)
        assert parse_frame(read_group_attributes(store, "") or {}, level) == FRAME.at_level(level)


def test_finishing_records_what_was_found(store: LocalStore, make_output: Any) -> None:
    output = make_output()
    mark_finished(output.store, "nuclei", (2_000_000, 8_000_000), "2026-01-02T03:04:05Z")
    attributes = labels_of(output.store, "nuclei")
    assert attributes["wsi_unet"] == {"model": "a model", "finished": "2026-01-02T03:04:05Z"}
    assert attributes["ome"]["image-label"]["properties"] == [
        {"label-value": 0, "class": "background", "pixels": 2_000_000, "area_mm2": 0.25},
        {"label-value": 1, "class": "nucleus", "pixels": 8_000_000, "area_mm2": 1.0},
        {"label-value": 2, "class": "tumour", "pixels": 0, "area_mm2": 0.0},
    ]
    mark_unfinished(output.store, "nuclei")
    attributes = labels_of(output.store, "nuclei")
    assert attributes["wsi_unet"]["finished"] is None
    assert attributes["ome"]["image-label"]["properties"][1] == {
        "label-value": 1,
        "class": "nucleus",
    }
    with pytest.raises(OutputError, match="no labels 'other'"):
        mark_finished(store, "other", (), "")


def test_areas_need_an_mpp(make_output: Any) -> None:
    output = make_output(mpp=None)
    mark_finished(output.store, "nuclei", (1, 2, 3), "now")
    properties = labels_of(output.store, "nuclei")["ome"]["image-label"]["properties"]
    assert properties[2] == {"label-value": 2, "class": "tumour", "pixels": 3}


def test_removing_a_label_group_removes_nothing_else(make_output: Any) -> None:
    output = make_output()
    store = output.store
    create_labels(store, "tumour", output.pyramid, FRAME, [], {})
    create_probabilities(store, "tumour", output.pyramid, FRAME, [], {})
    for name in ("nuclei", "tumour", "image"):
        progress = Progress(store, name)
        progress.write_run(RunRecord(name=name, signature="", parameters={}, created=""))
        progress.write_marker(
            BlockMarker(block=(0, 0), signature="s", counts=(), seconds={}, attempts=1, shards={})
        )
    before = tree(store.root)
    remove_run(store, "nuclei")
    gone = before.keys() - tree(store.root).keys()
    root = store.root
    expected = [
        path
        for path in before
        if any(
            Path(path).is_relative_to(root / folder)
            for folder in ("labels/nuclei", "probability/nuclei", ".wsi_unet/nuclei")
        )
    ]
    assert sorted(gone) == sorted(expected)
    assert read_label_names(store) == ["tumour"]
    changed = [path for path, data in tree(root).items() if before[path] != data]
    assert changed == [str(root / "labels/zarr.json")]


@pytest.mark.parametrize("image", [False, True])
def test_removing_everything_leaves_a_root_of_ours_and_what_is_not_ours(
    make_output: Any, image: bool
) -> None:
    output = make_output(image=image)
    store = output.store
    note = output.path / "note.txt"
    note.write_text("looks good")
    run = RunRecord(name="nuclei", signature="", parameters={}, created="")
    Progress(store, "nuclei").write_run(run)
    Progress(store, "image").write_run(run)
    remove_all(store)
    remove_all(store)
    expected = [".wsi_unet/zarr.json", "note.txt", "zarr.json"]
    assert sorted(store.list("")) == expected
    assert holds_output(store)
    assert read_level_count(store) is None
    ensure_root(store, {"slide": {"name": "another"}})
    assert read_group_attributes(store, "") == {
        "wsi_unet": {"format_version": 1, "slide": {"name": "another"}}
    }


def test_damaged_metadata_is_one_clear_line(store: LocalStore) -> None:
    create_labels(store, "nuclei", PYRAMID, FRAME, [], {})
    store.put("labels/nuclei/zarr.json", b"{")
    with pytest.raises(OutputError, match=r"'labels/nuclei/zarr\.json' is damaged"):
        mark_finished(store, "nuclei", (), "")


def test_zarr_walks_the_whole_tree_without_a_warning(make_output: Any) -> None:
    output = make_output()
    Progress(output.store, "nuclei").write_mask(np.ones((3, 3), bool))
    group = zarr.open_group(output.path, mode="r")
    members = dict(group.members(max_depth=None))
    assert {"0", "labels", "labels/nuclei/0", "probability/nuclei/3"} <= members.keys()
    assert str(group.tree())
    stored = members["labels/nuclei/0"]
    assert isinstance(stored, zarr.Array)
    assert stored.metadata.to_dict()["dimension_names"] == ("y", "x")

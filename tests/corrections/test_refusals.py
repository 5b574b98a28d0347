"""What can't be right is refused in one line, and nothing is written then."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from corrections import edits
from support.labelled import write_store

import wsi_unet
from wsi_unet.errors import AnnotationError, LockedError, OptionError, OutputError, WsiUnetError
from wsi_unet.storage.locking.lock import LockOwner, acquire
from wsi_unet.storage.opening import open_store

Change = Callable[[list[edits.Feature]], list[edits.Feature]]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edits.make_result(tmp_path_factory.mktemp("result") / "slide.ome.zarr")


@pytest.fixture(scope="module")
def features(result: Path) -> list[edits.Feature]:
    return edits.export_features(result)


def drawn(*bounds: float, name: str | None = "nucleus", identity: str | None = None) -> Any:
    return edits.make_feature(shapely.box(*bounds), name, identity)


def without_ids(features: list[edits.Feature]) -> list[edits.Feature]:
    return [{key: each[key] for key in each if key != "id"} for each in features]


def renamed(features: list[edits.Feature]) -> list[edits.Feature]:
    names = ["mitosis", "Mitosis", "nuclues"]
    return [
        edits.make_feature(shapely.geometry.shape(each["geometry"]), name, each["id"])
        for each, name in zip(features, names, strict=False)
    ]


def unclassified(features: list[edits.Feature]) -> list[edits.Feature]:
    return [*features, drawn(10, 10, 90, 90, name=None)]


def vanished(features: list[edits.Feature]) -> list[edits.Feature]:
    return [drawn(400.1, 400.1, 400.2, 400.2, identity=features[0]["id"]), *features[1:]]


def doubled(features: list[edits.Feature]) -> list[edits.Feature]:
    copy = {key: features[0][key] for key in ("type", "geometry", "properties")}
    return [*features, copy | {"id": str(uuid.uuid4())}]


def shifted(features: list[edits.Feature]) -> list[edits.Feature]:
    moved = [
        shapely.affinity.translate(shapely.geometry.shape(each["geometry"]), -40, -31)
        for each in features[30:50]
    ]
    return [
        *(
            edits.make_feature(m, "tumour", f["id"])
            for m, f in zip(moved, features[30:], strict=False)
        ),
        *features[:9],
    ]


def added_twice(features: list[edits.Feature]) -> list[edits.Feature]:
    return [*features, drawn(10, 10, 30, 50), drawn(10, 10, 30, 50, identity=str(uuid.uuid4()))]


def of_another_slide(features: list[edits.Feature]) -> list[edits.Feature]:
    return [*features, drawn(10, 10, 90, 90, identity=str(uuid.uuid5(uuid.NAMESPACE_DNS, "a")))]


REFUSED: dict[str, tuple[Change, str]] = {
    "ids twice": (lambda f: [*f, f[3]], "1 id of the files' outlines is there several times"),
    "nothing of ours": (without_ids, "none of the .* outlines has the id of an object of 'nuclei'"),
    "other objects": (of_another_slide, "1 of .* outlines are of objects that aren't among those"),
    "outside": (lambda f: [*f, drawn(1e5, 5, 1e6, 9)], "1 outline of .* outside of the slide"),
    "classes": (renamed, "no class 'mitosis' .1 outline., 'Mitosis' .1 outline., 'nuclues'"),
    "no class": (unclassified, "1 outline without a class; give them a class of the model"),
    "no pixel left": (vanished, "around x 400, y 400 covers the centre of no pixel"),
    "shifted": (
        shifted,
        "20 of 29 outlines are shifted alike, by x -40, y -31 px, .* `origin=40,31`",
    ),
    "added twice": (
        added_twice,
        "around x 20, y 30 covers exactly the pixels of another added one",
    ),
    "twice": (doubled, "covers exactly the pixels of the object"),
    "nothing": (lambda _: [], "holds no polygons"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_features_that_cannot_be_right(
    result: Path, features: list[edits.Feature], tmp_path: Path, name: str
) -> None:
    change, message = REFUSED[name]
    file = edits.write_features(tmp_path / "a.geojson", change(features))
    check_refused(result, message, file)


def check_refused(result: Path, message: str, *files: Path, **options: Any) -> WsiUnetError:
    before = {path for path in result.rglob("*") if path.is_file()}
    with pytest.raises(WsiUnetError, match=message) as caught:
        wsi_unet.import_annotations(files, result, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert {path for path in result.rglob("*") if path.is_file()} == before
    return caught.value


def test_an_outline_of_nothing_deletes_no_object(
    result: Path, features: list[edits.Feature], tmp_path: Path
) -> None:
    emptied = {**features[0], "geometry": {"type": "Polygon", "coordinates": []}}
    file = edits.write_features(tmp_path / "a.geojson", [emptied, *features[1:]])
    check_refused(result, "1 outline encloses nothing.*leave `complete` out", file, complete=True)
    report = wsi_unet.import_annotations(file, result)
    assert (report.counts.deleted, report.counts.empty, report.counts.absent) == (0, 1, 1)


def test_no_class_is_refused_though_new_ones_are_kept(
    result: Path, features: list[edits.Feature], tmp_path: Path
) -> None:
    file = edits.write_features(tmp_path / "a.geojson", unclassified(features))
    check_refused(result, "1 outline without a class", file, new_classes=True)


@pytest.mark.parametrize("new_classes", [False, True])
@pytest.mark.parametrize(
    ("name", "message"),
    [("x" * 100_000, "has 100000 characters; give it a name"), ("a\ud800", "isn't valid Unicode")],
)
def test_class_names_that_no_record_holds(
    name: str,
    message: str,
    new_classes: bool,
    result: Path,
    features: list[edits.Feature],
    tmp_path: Path,
) -> None:
    renamed = features[0] | {"properties": {"classification": {"name": name}}}
    file = edits.write_features(tmp_path / "a.geojson", [renamed, *features[1:]])
    error = check_refused(result, message, file, new_classes=new_classes)
    assert len(str(error)) < 300


def test_one_file_twice(result: Path, features: list[edits.Feature], tmp_path: Path) -> None:
    file = edits.write_features(tmp_path / "a.geojson", features)
    check_refused(result, f"{len(features)} ids .* give each file once", file, file)


def test_a_file_that_says_it_is_of_another_slide(
    result: Path, features: list[edits.Feature], tmp_path: Path
) -> None:
    said = {"creator": "wsi-unet", "groups": [{"fingerprint": "another", "label": "nuclei"}]}
    file = edits.write_features(tmp_path / "a.geojson", features, wsi_unet=said)
    check_refused(result, "of another slide than a slide", file)
    said["groups"] = [{"fingerprint": "a slide"}]
    edits.write_features(file, features, wsi_unet=said)
    copy = edits.make_result(tmp_path / "copy.ome.zarr")
    assert wsi_unet.import_annotations(file, copy).counts.unchanged == len(features)


def test_objects_of_another_result(
    result: Path, features: list[edits.Feature], tmp_path: Path
) -> None:
    other = edits.make_result(tmp_path / "other.ome.zarr", slide="another slide")
    file = edits.write_features(tmp_path / "a.geojson", features)
    check_refused(other, "none of the", file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[[[",
        b'{"type": "Feature"}',
        b"\x1f\x8b broken",
        gzip.compress(b"{}", mtime=0),
        b"PK\3\4",
    ],
)
def test_files_that_are_none(result: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.geojson").write_bytes(content)
    check_refused(result, "a.geojson", tmp_path / "a.geojson")


def test_files_that_are_not_there(result: Path, tmp_path: Path) -> None:
    check_refused(result, "can't be read", tmp_path / "a.geojson")
    check_refused(result, "can't be read", tmp_path)
    check_refused(result, "no files to import")


def test_options_that_contradict_each_other(
    result: Path, features: list[edits.Feature], tmp_path: Path
) -> None:
    file = edits.write_features(tmp_path / "a.geojson", features)
    error = check_refused(
        result, "choose one of `complete` and", file, complete=True, complete_within=file
    )
    assert isinstance(error, OptionError)


def test_results_without_objects(tmp_path: Path, features: list[edits.Feature]) -> None:
    file = edits.write_features(tmp_path / "a.geojson", features)
    bare = write_store(tmp_path / "bare.ome.zarr", edits.LABELS)
    check_refused(bare, "no objects of 'nuclei' are stored; find objects", file)
    check_refused(bare, "no labels 'glands', only nuclei", file, label="glands")
    with pytest.raises(OutputError, match="no output"):
        wsi_unet.import_annotations(file, tmp_path / "nowhere.ome.zarr")


def test_a_label_group_with_the_name_of_the_table(
    tmp_path: Path, features: list[edits.Feature]
) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    write_store(result, np.zeros(edits.SHAPE, np.uint8), name="nuclei.edited")
    file = edits.write_features(tmp_path / "a.geojson", features)
    check_refused(result, "'labels/nuclei.edited' are the labels of a run", file, label="nuclei")


def test_an_output_that_is_being_written(
    result: Path, features: list[edits.Feature], tmp_path: Path
) -> None:
    file = edits.write_features(tmp_path / "a.geojson", features)
    lock = acquire(open_store(result), owner=LockOwner.current("segment"))
    with lock, pytest.raises(LockedError):
        wsi_unet.import_annotations(file, result)


def test_damaged_objects(tmp_path: Path) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    file = edits.write_features(tmp_path / "a.geojson", edits.export_features(result))
    part = result / "objects/nuclei/0.0.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    check_refused(result, "'objects/nuclei/0.0.parquet' is damaged", file)


def test_outlines_that_are_too_intricate(
    result: Path, features: list[edits.Feature], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_unet.annotations.drawing.FREE_CROSSINGS", -(10**9))
    file = edits.write_features(tmp_path / "a.geojson", features)
    with pytest.raises(AnnotationError, match="crossings of edges and rows"):
        wsi_unet.import_annotations(file, result)


def test_an_object_too_large_to_be_measured(
    result: Path, features: list[edits.Feature], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_unet.corrections.rows.MOST_MOMENT", 1 << 20)
    file = edits.write_features(tmp_path / "a.geojson", [*features, drawn(10, 10, 700, 500)])
    check_refused(result, "is too large for an object", file)

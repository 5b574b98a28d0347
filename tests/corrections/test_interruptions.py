"""A table of corrected objects is there whole, or as it was before, whenever an import ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corrections import edits
from support.labelled import write_store

import wsi_unet
from wsi_unet.corrections.status import read_edit_status
from wsi_unet.errors import OutputError
from wsi_unet.labels.layout import mark_finished
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.opening import open_store


def read_state(result: Path) -> str | None:
    found = [*read_edit_status(open_store(result), "nuclei", ["nuclei"], verify=True)]
    return found[0].state if found else None


class Killed(BaseException):
    """Stands for the end of a process: nothing is tidied up for it."""


def kill_at(patch: pytest.MonkeyPatch, fatal: int, *, after: bool) -> list[str]:
    """Let the n-th change of what is corrected end the process; return the keys of changes."""
    changed: list[str] = []
    for name in ("put", "delete_all"):
        original = getattr(LocalStore, name)

        def change(self: LocalStore, key: str, *rest: Any, original: Any = original) -> None:
            ours = ".edited" in key
            if ours:
                changed.append(key)
            if ours and len(changed) == fatal and not after:
                raise Killed
            original(self, key, *rest)
            if ours and len(changed) == fatal:
                raise Killed

        patch.setattr(LocalStore, name, change)
    return changed


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("earlier", [False, True], ids=["no table", "an earlier table"])
def test_no_half_table_is_ever_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool, after: bool
) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    features = edits.export_features(result)
    file = edits.write_features(tmp_path / "new.geojson", features[5:])
    old_file = edits.write_features(tmp_path / "old.geojson", features[2:])
    old: list[dict[str, Any]] = []
    if earlier:
        wsi_unet.import_annotations(old_file, result, complete=True)
        old = edits.read_rows(result)
    new = [
        row for row in edits.read_objects(result) if row["uuid"] in {f["id"] for f in features[5:]}
    ]
    fatal, finished = 0, False
    while not finished:
        fatal += 1
        if earlier:
            wsi_unet.import_annotations(old_file, result, complete=True)
        else:
            forget(result)
        with monkeypatch.context() as patch:
            changed = kill_at(patch, fatal, after=after)
            try:
                wsi_unet.import_annotations(file, result, complete=True)
                finished = True
            except Killed:
                pass
        written = any(key.endswith("edits.json") for key in changed[: None if after else -1])
        if finished or written:
            assert edits.read_rows(result) == new
        elif earlier:
            assert edits.read_rows(result) == old
        else:
            with pytest.raises(OutputError, match="no corrected objects"):
                wsi_unet.open_edited_objects(result)
        assert read_state(result) in ("finished", None)
        wsi_unet.import_annotations(file, result, complete=True)
        assert edits.read_rows(result) == new
        assert len([*(result / "objects/nuclei.edited").iterdir()]) == 1
    assert fatal > 5


def forget(result: Path) -> None:
    store = open_store(result)
    store.delete_all("objects/nuclei.edited")
    store.delete_all(".wsi_unet/nuclei/objects/nuclei.edited")


def test_a_full_disk_leaves_the_table_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    features = edits.export_features(result)
    file = edits.write_features(tmp_path / "a.geojson", features)
    wsi_unet.import_annotations(file, result)
    before, put = edits.read_rows(result), LocalStore.put

    def fail(self: LocalStore, key: str, data: bytes) -> None:
        if ".edited" in key and key.endswith("1.0.parquet"):
            raise OutputError("the disk is full")
        put(self, key, data)

    edits.write_features(file, features[9:])
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", fail)
        with pytest.raises(OutputError, match="the disk is full"):
            wsi_unet.import_annotations(file, result, complete=True)
    assert edits.read_rows(result) == before
    assert wsi_unet.import_annotations(file, result, complete=True).counts.deleted == 9


def test_other_objects_make_corrections_outdated(tmp_path: Path) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    file = edits.write_features(tmp_path / "a.geojson", edits.export_features(result))
    wsi_unet.import_annotations(file, result)
    before = edits.read_rows(result)
    assert read_state(result) == "finished"
    wsi_unet.find_objects(result, min_area=5)
    assert read_state(result) == "outdated"
    with pytest.raises(OutputError, match="corrected objects of 'nuclei' are outdated"):
        wsi_unet.open_edited_objects(result)
    with pytest.raises(wsi_unet.AnnotationError, match="object rule"):
        wsi_unet.import_annotations(file, result)
    wsi_unet.find_objects(result)
    assert read_state(result) == "finished"
    assert edits.read_rows(result) == before


def test_other_labels_make_corrections_outdated(tmp_path: Path) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    file = edits.write_features(tmp_path / "a.geojson", edits.export_features(result))
    wsi_unet.import_annotations(file, result)
    counts = np.bincount(edits.LABELS.ravel()).tolist()
    mark_finished(open_store(result), "nuclei", counts, "2026-02-03T04:05:06+00:00")
    assert read_state(result) == "outdated"
    with pytest.raises(
        OutputError, match=r"belong to earlier labels.*import the annotations again"
    ):
        wsi_unet.open_edited_objects(result)
    wsi_unet.find_objects(result)
    assert read_state(result) == "outdated"
    wsi_unet.import_annotations(file, result)
    assert read_state(result) == "finished"


@pytest.mark.parametrize("damage", ["lost", "changed", "record"])
def test_damage_is_told(tmp_path: Path, damage: str) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    file = edits.write_features(tmp_path / "a.geojson", edits.export_features(result))
    wsi_unet.import_annotations(file, result)
    (part,) = result.glob("objects/nuclei.edited/*/0.0.parquet")
    record = result / ".wsi_unet/nuclei/objects/nuclei.edited/edits.json"
    if damage == "lost":
        part.unlink()
        with pytest.raises(OutputError, match=r"parts of the corrected objects .* are missing"):
            wsi_unet.open_edited_objects(result)
    elif damage == "changed":
        part.write_bytes(part.read_bytes()[:-1] + b"\0")
        with pytest.raises(OutputError, match=r"is damaged .* import the annotations again"):
            wsi_unet.evaluate(result, result, truth_label="nuclei.edited")
    else:
        record.write_text(record.read_text().replace('"parts":{"', '"parts":{"../'))
    assert read_state(result) == (None if damage == "record" else "damaged")
    assert wsi_unet.import_annotations(file, result).written
    assert read_state(result) == "finished"


def test_results_of_earlier_versions_are_untouched_by_reading(tmp_path: Path) -> None:
    result = write_store(tmp_path / "slide.ome.zarr", edits.LABELS)
    before = {path: path.read_bytes() for path in result.rglob("*") if path.is_file()}
    assert read_state(result) is None
    with pytest.raises(OutputError):
        wsi_unet.open_edited_objects(result)
    assert {path: path.read_bytes() for path in result.rglob("*") if path.is_file()} == before

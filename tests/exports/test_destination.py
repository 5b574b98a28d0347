"""Exports are there whole or not at all, and replace nothing but earlier exports."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
from pathlib import Path

import pytest
from exports.results import make_result

import wsi_unet
from wsi_unet import ExportOptions, LockedError, OptionError, OutputError
from wsi_unet.errors import WsiUnetError
from wsi_unet.exports.destination import write_file, write_files, write_folder
from wsi_unet.exports.formats import FORMATS
from wsi_unet.exports.progress import ExportProgress
from wsi_unet.exports.writers import WRITERS

OPTIONS = {"png": ExportOptions(class_name="nucleus")}


def _look(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return what tells whether anything in a folder was changed."""
    stats = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (stat.st_ino, stat.st_mode, stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_result(tmp_path_factory.mktemp("result") / "slide.ome.zarr")


def test_every_format_has_a_writer() -> None:
    assert [*FORMATS] == [*WRITERS]


@pytest.mark.parametrize("name", FORMATS)
def test_an_earlier_export_is_replaced(name: str, result: Path, tmp_path: Path) -> None:
    place = tmp_path / f"out{FORMATS[name].suffix}"
    for _ in range(2):
        report = wsi_unet.export(result, name, place, options=OPTIONS.get(name))
        assert report.files == (place,)
        assert [*tmp_path.iterdir()] == [place]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_anything_else_stays(name: str, kind: str, result: Path, tmp_path: Path) -> None:
    place = tmp_path / f"out{FORMATS[name].suffix}"
    if kind == "folder":
        place.mkdir()
        (place / "mine.txt").write_text("mine")
        inside = place / f"slide{FORMATS[name].suffix}"
        if not FORMATS[name].folder:  # then the export goes into it
            inside.write_text("mine")
    elif kind == "link":
        (tmp_path / "mine").write_text("mine")
        place.symlink_to("mine")
    else:
        place.write_text("mine")
    before = _look(tmp_path)
    with pytest.raises(OutputError, match="isn't an earlier export"):
        wsi_unet.export(result, name, place, options=OPTIONS.get(name))
    assert _look(tmp_path) == before


@pytest.mark.parametrize("name", FORMATS)
def test_a_named_pipe_is_neither_read_nor_written(name: str, result: Path, tmp_path: Path) -> None:
    place = tmp_path / f"out{FORMATS[name].suffix}"
    os.mkfifo(place)
    with pytest.raises(OutputError, match="isn't an earlier export"):
        wsi_unet.export(result, name, place, options=OPTIONS.get(name))
    place.rename(tmp_path / f".{place.name}.partial")
    with pytest.raises(OutputError, match="can't write"):
        wsi_unet.export(result, name, place, options=OPTIONS.get(name))
    assert [path.name for path in tmp_path.iterdir()] == [f".{place.name}.partial"]


@pytest.mark.parametrize("name", FORMATS)
def test_places_that_cannot_be_are_refused(name: str, result: Path, tmp_path: Path) -> None:
    suffix, options = FORMATS[name].suffix, OPTIONS.get(name)
    before = _look(result)
    for place in (result / f"out{suffix}", result / "labels" / f"out{suffix}"):
        with pytest.raises(OptionError, match="is inside the Zarr store"):
            wsi_unet.export(result, name, place, options=options)
    with pytest.raises(WsiUnetError, match=r"isn't an earlier export|is inside the Zarr store"):
        wsi_unet.export(result, name, result, options=options)
    assert _look(result) == before
    with pytest.raises(OutputError, match="File name too long"):
        wsi_unet.export(result, name, tmp_path / ("n" * 250 + suffix), options=options)
    with pytest.raises(OptionError, match="`path` is empty"):
        wsi_unet.export(result, name, "", options=options)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_export_leaves_nothing(name: str, result: Path, tmp_path: Path) -> None:
    def interrupt(progress: ExportProgress) -> None:
        raise KeyboardInterrupt

    place = tmp_path / f"out{FORMATS[name].suffix}"
    with pytest.raises(KeyboardInterrupt):
        wsi_unet.export(result, name, place, options=OPTIONS.get(name), on_progress=interrupt)
    assert not [*tmp_path.iterdir()]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def fill() -> None:
        with write_file(place) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = tmp_path / "out.csv"
    place.write_text("before")
    with pytest.raises(OutputError, match="No space left on device"):
        fill()
    assert place.read_text() == "before"
    assert [*tmp_path.iterdir()] == [place]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_that_a_disk_is_full(name: str, result: Path, tmp_path: Path) -> None:
    place = tmp_path / f"out{FORMATS[name].suffix}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.raises(OutputError, match=r"can't write .*: File too large"):
            wsi_unet.export(result, name, place, options=OPTIONS.get(name))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not [*tmp_path.iterdir()]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".out.csv.partial").write_text("a longer text of an earlier process")
    with write_file(tmp_path / "out.csv") as file:
        file.write(b"new")
    assert (tmp_path / "out.csv").read_text() == "new"
    (tmp_path / ".out.zarr.partial").mkdir()
    (tmp_path / ".out.zarr.partial" / "old").write_text("old")
    with write_folder(tmp_path / "out.zarr") as folder:
        (folder / "new").write_text("new")
    assert [path.name for path in (tmp_path / "out.zarr").iterdir()] == ["new"]
    assert {path.name for path in tmp_path.iterdir()} == {"out.csv", "out.zarr"}


def test_files_take_their_places_together(tmp_path: Path) -> None:
    for name in ("out-1", "out-3"):
        (tmp_path / name).write_text("old")
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "left").write_text("by a killed process")
    earlier = [tmp_path / "out-1", tmp_path / "out-3"]
    with write_files(tmp_path / "out", earlier) as folder:
        for name in ("out-1", "out-2"):
            (folder / name).write_text("new")
        assert (tmp_path / "out-1").read_text() == "old"
        with pytest.raises(LockedError), write_files(tmp_path / "out", []):
            pass
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"out-1": "new", "out-2": "new"}


@pytest.mark.parametrize("kind", ["folder", "files"])
def test_all_is_on_the_disk_before_it_takes_its_place(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    place = tmp_path / "out"
    with write_folder(place) if kind == "folder" else write_files(place, []) as new:
        written = [new, new / "file"]
        if kind == "folder":
            (new / "inner" / "empty").mkdir(parents=True)
            written += [new / "inner", new / "inner" / "empty", new / "inner" / "file"]
            (new / "inner" / "file").write_text("text")
        (new / "file").write_text("text")
        expected = {path.stat().st_ino for path in written}
    assert synced == expected


@pytest.mark.parametrize("kind", ["folder", "files"])
def test_what_does_not_reach_the_disk_takes_no_place(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write() -> None:
        place = tmp_path / "out"
        with write_folder(place) if kind == "folder" else write_files(place, []) as new:
            (new / "file").write_text("text")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        write()
    assert not [*tmp_path.iterdir()]


def test_files_that_cannot_all_take_their_places_say_so(tmp_path: Path) -> None:
    def write() -> None:
        with write_files(tmp_path / "out", []) as folder:
            for name in ("out-1", "out-2"):
                (folder / name).write_text("new")

    (tmp_path / "out-2" / "mine").mkdir(parents=True)
    with pytest.raises(OutputError, match="partly new and partly of an earlier export"):
        write()
    assert {path.name for path in tmp_path.iterdir()} == {"out-1", "out-2"}
    assert (tmp_path / "out-2" / "mine").is_dir()


def test_a_link_in_the_way_of_the_new_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".out.csv.partial").symlink_to("mine")
    with (
        pytest.raises(OutputError, match=r"can't write .*out\.csv"),
        write_file(tmp_path / "out.csv"),
    ):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with (
        write_file(tmp_path / "out.csv") as file,
        pytest.raises(LockedError, match="another process is writing it"),
        write_file(tmp_path / "out.csv"),
    ):
        pass
    assert file.closed
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_file_that_another_process_has_just_finished_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, new = tmp_path / "out.csv", tmp_path / ".out.csv.partial"
    new.write_text("another's")
    lock = fcntl.flock

    def finish_then_lock(descriptor: int, operation: int) -> None:
        new.replace(place)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", finish_then_lock)
    with pytest.raises(LockedError, match="has just written it"), write_file(place):
        pass
    assert place.read_text() == "another's"
    assert [*tmp_path.iterdir()] == [place]


def test_refusals(result: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="`format` is 'qupth'; give one of csv"):
        wsi_unet.export(result, "qupth", tmp_path / "x")
    with pytest.raises(OptionError, match="`level` isn't for the format csv, only for png"):
        wsi_unet.export(result, "csv", tmp_path / "x.csv", options=ExportOptions(level=1))
    with pytest.raises(OptionError, match="its folder isn't there"):
        wsi_unet.export(result, "csv", tmp_path / "nowhere" / "x.csv")
    with pytest.raises(OutputError, match="there is no output of wsi-unet here"):
        wsi_unet.export(tmp_path, "csv", tmp_path / "x.csv")
    assert not [*tmp_path.iterdir()]


def test_results_without_objects_say_what_to_do(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr")
    (result / ".wsi_unet" / "nuclei" / "objects" / "nuclei" / "stage.json").unlink()
    with pytest.raises(OutputError, match="no objects of 'nuclei' are stored; find objects"):
        wsi_unet.export(result, "csv", tmp_path / "x.csv")


def test_a_cohort_is_exported_result_by_result(tmp_path: Path) -> None:
    cohort = tmp_path / "results"
    for name in ("a", "b", "c"):
        make_result(cohort / f"{name}.ome.zarr")
    (cohort / "b.ome.zarr" / ".wsi_unet" / "nuclei" / "objects" / "nuclei" / "stage.json").unlink()
    report = wsi_unet.export(cohort, "csv", tmp_path / "tables")
    assert [path.name for path in report.files] == ["a.csv", "c.csv"]
    assert {*report.failures} == {str(cohort / "b.ome.zarr")}
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"a.csv", "c.csv"}

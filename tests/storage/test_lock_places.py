"""The surroundings of the lock of an output: folders, disks, buckets."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.lock_processes import ask, competing, holding, stored
from support.locks import START, dead, elsewhere, record_of

from wsi_unet.errors import LockedError, OptionError, OutputError
from wsi_unet.labels import contents, layout
from wsi_unet.labels.names import check_label_name
from wsi_unet.labels.progress import Progress, RunRecord
from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.locking.lock import (
    HEARTBEAT_SECONDS,
    Timing,
    acquire,
)
from wsi_unet.storage.opening import open_store

# What lies around it


def test_the_lock_is_no_part_of_the_output(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "out.ome.zarr")
    with acquire(store):
        assert not contents.holds_output(store)
        layout.ensure_root(store, {"slide": {"name": "a slide"}})
        assert contents.holds_output(store)
        run = RunRecord(name="nuclei", signature="", parameters={}, created="")
        Progress(store, "nuclei").write_run(run)
        before = store.get(LOCK_KEY)
        layout.remove_run(store, "nuclei")
        layout.remove_all(store)
        assert store.get(LOCK_KEY) == before
    assert sorted(store.list("")) == [".wsi_unet/zarr.json", "zarr.json"]
    assert list((store.root / ".wsi_unet/.tmp").iterdir()) == []


def test_no_label_group_can_take_its_place() -> None:
    with pytest.raises(OptionError, match="can't name a label group"):
        check_label_name("lock.json")


def test_what_was_made_for_the_lock_goes_with_it(tmp_path: Path) -> None:
    store = open_store(tmp_path / "new" / "folder" / "out.ome.zarr")
    with acquire(store) as lock:
        assert lock.beat() == HEARTBEAT_SECONDS
        store.remove_leftovers()
        with pytest.raises(LockedError):
            acquire(store)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_there_before_stay(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.docx").write_text("years of work")
    for name in ("empty", "theirs", "theirs/out.ome.zarr"):
        acquire(open_store(tmp_path / name)).release()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["empty", "theirs", "theirs/thesis.docx"]


def test_what_a_killed_run_made_goes_when_its_successor_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path / "new" / "out.ome.zarr")
    store.create(LOCK_KEY, record_of(dead()).to_bytes())
    acquire(store).release()
    assert list(tmp_path.iterdir()) == []


# Places that can't be written to


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a small file system")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def fill(folder: Path) -> Path:
    with (folder / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return folder / "filling"


def test_a_full_disk_is_refused_and_survived_while_the_lock_is_held(small_disk: Path) -> None:
    filling = fill(small_disk)
    store = LocalStore(small_disk / "out.ome.zarr")
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        acquire(store)
    assert list(small_disk.iterdir()) == [filling]
    filling.unlink()
    with acquire(store, timing=Timing(0.05, 20)) as lock:
        filling = fill(small_disk)
        time.sleep(0.2)
        assert not lock.lost
        begun = stored(store).beat
        filling.unlink()
        end = time.monotonic() + 60
        while stored(store).beat < begun + 2:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert list(small_disk.iterdir()) == []


def test_a_read_only_disk_is_one_clear_line(small_disk: Path) -> None:
    (small_disk / "out.ome.zarr").mkdir()
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    for name in ("out.ome.zarr", "new"):
        with pytest.raises(OutputError, match="choose an output folder that you may") as refused:
            acquire(open_store(small_disk / name))
        assert "\n" not in str(refused.value)
    assert not list((small_disk / "out.ome.zarr").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_clear_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="that you may write to"):
            acquire(open_store(tmp_path / "out"))
    finally:
        tmp_path.chmod(0o700)


def test_a_lock_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / LOCK_KEY).mkdir(parents=True)
    with pytest.raises(OutputError, match=r"lock\.json is a folder"):
        acquire(open_store(tmp_path))


def test_a_bucket_is_locked_like_a_folder(bucket: str) -> None:
    url = f"{bucket}/out.ome.zarr"
    store = open_store(url)
    with holding(url, 0.2, 5) as first:
        with pytest.raises(LockedError, match=rf"^{url}: is being written by process \d+ of"):
            acquire(store)
        begun = stored(store).beat
        end = time.monotonic() + 60
        while stored(store).beat < begun + 2:
            assert time.monotonic() < end
        assert first.asked() == "still held"
        first.process.kill()
        first.process.wait()
        with acquire(store) as lock:
            assert lock.beat()
            assert not contents.holds_output(store)
            assert stored(store).owner.pid == os.getpid()
            store.put(LOCK_KEY, record_of(elsewhere()).to_bytes())
            assert lock.beat() is None
            assert lock.lost
    assert stored(store).token == "theirs"
    store.delete(LOCK_KEY)
    acquire(store).release()
    assert list(store.list("")) == []
    with holding(url) as again:
        assert again.ended() == "released"


def test_of_many_who_want_the_lock_in_a_bucket_one_wins_every_time(bucket: str) -> None:
    with competing(4) as competitors:
        for turn in range(9):
            url = f"{bucket}/{turn}"
            store = open_store(url)
            if turn % 3:
                owner = dead() if turn % 3 == 1 else elsewhere()
                store.put(LOCK_KEY, record_of(owner, START - timedelta(days=1)).to_bytes())
            answers = ask(competitors, f"take {url} {time.monotonic() + 0.05}")
            assert sorted(answers) == ["refused"] * 3 + ["won"], turn
            winner = competitors[answers.index("won")]
            assert stored(store).owner.pid == winner.pid
            assert ask([winner], "release") == ["released"]
            assert store.get(LOCK_KEY) is None

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support import warm

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.storage.local_store import ABANDONED_SECONDS, TEMPORARY_FOLDER, LocalStore
from wsi_unet.storage.opening import open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out.ome.zarr")


def test_opening_touches_nothing(tmp_path: Path) -> None:
    open_store(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_what_is_put_is_there(store: LocalStore) -> None:
    assert store.get("a/b/c") is None
    assert store.size("a/b/c") is None
    store.put("a/b/c", b"first")
    store.put("a/b/c", b"second")
    assert store.get("a/b/c") == b"second"
    assert store.size("a/b/c") == 6
    store.delete("a/b/c")
    store.delete("a/b/c")
    store.delete("a/b/c/d")
    assert store.get("a/b/c") is None


def test_keys_are_listed_without_temporaries(store: LocalStore) -> None:
    for key in ("b/2", "b/1", "a", "b/c/3"):
        store.put(key, b"")
    (store.root / TEMPORARY_FOLDER / "left.partial").write_bytes(b"")
    assert list(store.list("")) == ["a", "b/1", "b/2", "b/c/3"]
    assert list(store.list("b")) == ["b/1", "b/2", "b/c/3"]
    assert list(store.list("nothing")) == []


def test_a_folder_is_removed_whole(store: LocalStore) -> None:
    for key in ("b/2", "b/c/3", "bb/1"):
        store.put(key, b"x")
    store.delete_all("b")
    store.delete_all("b")
    assert list(store.list("")) == ["bb/1"]
    assert list((store.root / TEMPORARY_FOLDER).iterdir()) == []


def temporary(store: LocalStore, name: str) -> Path:
    path = store.root / TEMPORARY_FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    return path


def test_only_abandoned_temporaries_are_cleaned(store: LocalStore) -> None:
    host = os.uname().nodename
    process = warm.Popen([sys.executable, "-c", ""])
    process.wait()
    unique = "0123456789abcdef" * 2
    gone = temporary(store, f"{host}-{process.pid}-{unique}.partial")
    grave = store.root / TEMPORARY_FOLDER / f"{host}-{process.pid}-{unique}.deleted"
    (grave / "inside").mkdir(parents=True)
    ours = temporary(store, f"{host}-{os.getpid()}-{unique}.partial")
    elsewhere = temporary(store, f"elsewhere-1-{unique}.partial")
    old = temporary(store, f"else-where-1-{unique}.partial")
    then = time.time() - ABANDONED_SECONDS - 60
    os.utime(old, (then, then))
    store.remove_leftovers()
    assert not gone.exists()
    assert not grave.exists()
    assert not old.exists()
    assert ours.exists()
    assert elsewhere.exists()


def test_cleaning_nothing_is_fine(store: LocalStore) -> None:
    store.remove_leftovers()
    assert not store.root.exists()


def test_a_put_survives_the_loss_of_its_temporary(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Path.replace, []

    def lose_the_first(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 1:
            self.unlink()
        return real(self, target)

    monkeypatch.setattr(Path, "replace", lose_the_first)
    store.put("a/b", b"whole")
    assert store.get("a/b") == b"whole"


def test_an_unknown_url_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="gs:// can't be read or written"):
        open_store("gs://bucket/out.ome.zarr")
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        open_store(file)
    assert file.read_text() == "mine"


def test_a_path_that_cannot_be_looked_at_is_one_clear_line(tmp_path: Path) -> None:
    for path, kind, match in (
        (tmp_path / ("long" * 99), OutputError, "File name too long; choose another folder"),
        (Path("~nobody-of-this-name/out"), OptionError, "home directory"),
    ):
        with pytest.raises(kind, match=match) as caught:
            open_store(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_an_unwritable_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"can't write 'zarr\.json'") as caught:
        LocalStore(tmp_path / "file" / "out").put("zarr.json", b"{}")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_clear_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="that you may write to"):
            open_store(tmp_path / "out").put("zarr.json", b"{}")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_that_cannot_grow_leaves_the_old_one(store: LocalStore) -> None:
    store.put("a", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Beyond the limit the kernel also sends a signal, which would end the process.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match="can't write 'a'"):
            store.put("a", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert store.get("a") == b"old"
    assert list((store.root / TEMPORARY_FOLDER).iterdir()) == []


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a small file system")
    try:
        store = LocalStore(mounted / "out")
        store.put("a", b"old")
        with pytest.raises(OutputError, match="No space left on device; free some space"):
            store.put("a", bytes(100_000))
        assert store.get("a") == b"old"
        assert list((store.root / TEMPORARY_FOLDER).iterdir()) == []
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_reader_sees_the_old_or_the_new(store: LocalStore) -> None:
    versions = [bytes([number]) * (50_000 + number) for number in range(4)]
    store.put("key", versions[0])
    done = threading.Event()

    def write() -> None:
        try:
            for turn in range(200):
                store.put("key", versions[turn % 4])
        finally:
            done.set()

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    while not done.is_set():
        assert store.get("key") in versions
    for writer in writers:
        writer.join()
    assert list((store.root / TEMPORARY_FOLDER).iterdir()) == []


WRITE_FOR_EVER = """
import itertools, sys
from wsi_unet.storage.opening import open_store
store = open_store(sys.argv[1])
for turn in itertools.count():
    store.put("key", bytes([turn % 200]) * 20_000_000)
"""


def test_a_killed_writer_leaves_a_whole_object_and_its_temporary_is_cleaned(
    store: LocalStore,
) -> None:
    store.put("key", b"first")
    folder = store.root / TEMPORARY_FOLDER
    moments = random.Random(5)
    caught = 0
    for _ in range(20):
        command = [sys.executable, "-c", WRITE_FOR_EVER, str(store.root)]
        with warm.Popen(command) as process:
            while not list(folder.iterdir()):
                assert process.poll() is None
            time.sleep(moments.uniform(0, 0.005))
            process.send_signal(signal.SIGKILL)
            process.wait()
        data = store.get("key")
        assert data is not None
        assert data == b"first" or (len(data) == 20_000_000 and len(set(data)) == 1)
        assert list(store.list("")) == ["key"]
        caught += len(list(folder.iterdir()))
        store.remove_leftovers()
        assert list(folder.iterdir()) == []
        if caught >= 3:
            return
    pytest.fail(f"only {caught} of 20 writers were killed in the middle of a put")

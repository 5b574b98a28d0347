"""Creating and swapping files concurrently: threads, processes, and plain file systems."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import warm

from wsi_unet.errors import OutputError
from wsi_unet.storage import guard as guard_module
from wsi_unet.storage.guard import GUARD_NAME, hold_guard
from wsi_unet.storage.local_store import ABANDONED_SECONDS, TEMPORARY_FOLDER, LocalStore

KEY = ".wsi_unet/lock.json"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out.ome.zarr")


def refuse_flock(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def refuse_links(self: Path, target: Path) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture(params=["flock and links", "no flock", "no links", "neither"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Disable what the file system can't do."""
    kind: str = request.param
    if kind in ("no flock", "neither"):
        monkeypatch.setattr(fcntl, "flock", refuse_flock)
    if kind in ("no links", "neither"):
        monkeypatch.setattr(Path, "hardlink_to", refuse_links)
    return kind


def in_threads(work: Callable[[int], None], threads: int) -> None:
    errors: list[BaseException] = []

    def guarded_work(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=guarded_work, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.usefixtures("file_system")
def test_an_object_is_created_once(store: LocalStore) -> None:
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.get("a/b") == b"first"
    assert list((store.root / TEMPORARY_FOLDER).glob("*.partial")) == []


@pytest.mark.usefixtures("file_system")
def test_an_object_is_swapped_only_if_it_is_what_was_expected(store: LocalStore) -> None:
    assert not store.swap("a", b"", b"new")
    assert not store.swap("a", b"", None)
    assert not store.root.exists()
    store.put("a", b"old")
    assert not store.swap("a", b"other", b"new")
    assert not store.swap("a", b"other", None)
    assert store.get("a") == b"old"
    assert store.swap("a", b"old", b"new")
    assert store.get("a") == b"new"
    assert store.swap("a", b"new", None)
    assert store.get("a") is None
    assert list(store.root.iterdir()) == []


def create_together(
    store: LocalStore, key: str, start: threading.Barrier, won: list[int], number: int
) -> None:
    start.wait()
    if store.create(key, bytes([number]) * 5000):
        won.append(number)
    assert store.size(key) == 5000


@pytest.mark.usefixtures("file_system")
def test_of_many_creators_one_wins_with_a_whole_object(store: LocalStore) -> None:
    for turn in range(30):
        won: list[int] = []
        create = partial(create_together, store, f"key/{turn}", threading.Barrier(4), won)
        in_threads(create, 4)
        assert len(won) == 1
        assert store.get(f"key/{turn}") == bytes(won) * 5000
    assert list((store.root / TEMPORARY_FOLDER).glob("*.partial")) == []


def add(store: LocalStore, times: int) -> None:
    while times:
        found = store.get(KEY)
        assert found is not None
        times -= store.swap(KEY, found, b"%d" % (int(found) + 1))


@pytest.mark.usefixtures("file_system")
def test_no_swap_between_threads_is_lost(store: LocalStore) -> None:
    store.create(KEY, b"0")
    in_threads(lambda number: add(store, 25), 4)
    assert store.get(KEY) == b"100"


ADD = """
import fcntl, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_create_and_swap as here
if "no-flock" in sys.argv:
    fcntl.flock = here.refuse_flock
store = here.LocalStore(Path(sys.argv[2]))
here.in_threads(lambda number: here.add(store, 25), 2)
"""


@pytest.mark.parametrize("kind", ["flock", "no-flock"])
def test_no_swap_between_processes_is_lost(store: LocalStore, kind: str) -> None:
    store.create(KEY, b"0")
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", ADD, folder, str(store.root), kind]
    processes = [warm.Popen(command) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert store.get(KEY) == b"200"
    assert store.swap(KEY, b"200", None)
    assert not store.root.exists()


def test_a_swap_that_comes_too_late_changes_nothing(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one swaps after the content was looked at, before the guard is held."""
    store.put("key", b"old")

    @contextmanager
    def interfere(guard: Path) -> Iterator[None]:
        (store.root / "key").write_bytes(b"theirs")
        with hold_guard(guard):
            yield

    monkeypatch.setattr(f"{LocalStore.__module__}.hold_guard", interfere)
    for data in (b"ours", None):
        assert not store.swap("key", b"old", data)
        assert store.get("key") == b"theirs"
        store.put("key", b"old")


def test_creating_survives_others_who_remove_their_folders(store: LocalStore) -> None:
    def come_and_go(number: int) -> None:
        key = f".wsi_unet/{number}"
        for _ in range(100):
            assert store.create(key, b"here")
            assert store.swap(key, b"here", None)

    in_threads(come_and_go, 3)
    assert [
        path for path in store.root.rglob("*") if path.is_file() and path.name != GUARD_NAME
    ] == []


def test_a_guard_is_held_by_one_even_if_it_is_removed_all_the_time(tmp_path: Path) -> None:
    inside: list[int] = []

    def hold(number: int) -> None:
        for turn in range(100):
            with hold_guard(tmp_path / "guard"):
                inside.append(number)
                time.sleep(0)
                assert inside == [number]
                inside.remove(number)
                if (turn + number) % 2:
                    (tmp_path / "guard").unlink()

    in_threads(hold, 4)


def test_a_guard_that_was_removed_between_opening_and_locking_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, lock = tmp_path / "guard", fcntl.flock
    calls: list[int] = []

    def lock_too_late(descriptor: int, operation: int) -> None:
        if operation != fcntl.LOCK_UN:
            calls.append(operation)
        if calls == [operation]:
            guard.unlink()
        if calls == [operation] * 2:
            guard.rename(tmp_path / "theirs")
            guard.touch()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_too_late)
    with hold_guard(guard), guard.open() as file, pytest.raises(BlockingIOError):
        lock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


HOLD = """
import sys, time
from pathlib import Path
from wsi_unet.storage.guard import hold_guard
with hold_guard(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_lets_go_and_a_stopped_one_is_one_clear_line(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("key", b"old")
    guard = store.root / TEMPORARY_FOLDER / GUARD_NAME
    monkeypatch.setattr(guard_module, "GUARD_SECONDS", 0.1)
    with warm.Popen([sys.executable, "-c", HOLD, str(guard)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(OutputError, match=r"another process has held .*guard for 0\.1 s") as no:
            store.swap("key", b"old", b"new")
        assert "\n" not in str(no.value)
        assert store.get("key") == b"old"
        process.kill()
    assert store.swap("key", b"old", b"new")


def test_what_a_killed_holder_left_without_flock_is_named_and_cleaned_in_time(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("key", b"old")
    left = store.root / TEMPORARY_FOLDER / f"{GUARD_NAME}.held"
    left.touch()
    monkeypatch.setattr(fcntl, "flock", refuse_flock)
    monkeypatch.setattr(guard_module, "GUARD_SECONDS", 0.05)
    with pytest.raises(OutputError, match=rf"delete {left} if no process is using it"):
        store.swap("key", b"old", b"new")
    then = time.time() - ABANDONED_SECONDS - 60
    os.utime(left, (then, then))
    os.utime(left.with_name(GUARD_NAME), (then, then))
    store.remove_leftovers()
    assert not left.exists()
    assert left.with_name(GUARD_NAME).exists()
    assert store.swap("key", b"old", b"new")


def test_a_forked_process_keeps_no_guard(tmp_path: Path) -> None:
    """A process that is forked while the guard is held has the same open file."""
    script = """
import os, sys, time
from pathlib import Path
from wsi_unet.storage import guard as guard_module
guard_module.GUARD_SECONDS = 1
guard = Path(sys.argv[1])
with guard_module.hold_guard(guard):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
try:
    with guard_module.hold_guard(guard):
        pass
finally:
    os.kill(child, 9)
    os.waitpid(child, 0)
"""
    warm.run([sys.executable, "-c", script, str(tmp_path / "guard")], check=True, timeout=60)


def test_another_failure_of_the_file_system_is_one_clear_line(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    store.put("key", b"old")
    monkeypatch.setattr(fcntl, "flock", fail)
    for data in (b"new", None):
        with pytest.raises(OutputError, match="key': Input/output error"):
            store.swap("key", b"old", data)
    monkeypatch.setattr(Path, "hardlink_to", fail)
    with pytest.raises(OutputError, match="can't write 'other': Input/output error"):
        store.create("other", b"")
    assert store.get("key") == b"old"
    assert list((store.root / TEMPORARY_FOLDER).glob("*.partial")) == []


def test_a_creation_that_fails_leaves_no_folder(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        store.create(KEY, b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_link_whose_answer_got_lost_counts(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Path.hardlink_to

    def ask_twice(self: Path, target: Path) -> None:
        link(self, target)
        link(self, target)

    monkeypatch.setattr(Path, "hardlink_to", ask_twice)
    assert store.create("key", b"ours")
    assert not store.create("key", b"theirs")


def test_a_place_that_cannot_be_written_to_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"can't write 'zarr\.json': Not a directory"):
        LocalStore(tmp_path / "file" / "out").create("zarr.json", b"{}")
    assert (tmp_path / "file").read_text() == "mine"

"""Who gets the lock of an output, and who keeps it; by a clock that only waiting moves."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from support.locks import (
    START,
    Clock,
    MemoryObjects,
    dead,
    elsewhere,
    record_of,
    release_all,
    token_of,
)

from wsi_unet.errors import LockedError, OptionError, OutputError
from wsi_unet.labels import layout
from wsi_unet.labels.heartbeat import HEARTBEAT, THREAD_NAME
from wsi_unet.labels.lock import (
    HEARTBEAT_SECONDS,
    LockRecord,
    Owner,
    Timing,
    acquire,
)
from wsi_unet.labels.objects import LOCK_KEY, LocalObjects, open_objects
from wsi_unet.labels.progress import Progress, RunRecord


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def nothing_stays_held() -> Iterator[None]:
    yield
    assert release_all() == 0


def beats() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def wait_until_no_thread_beats() -> None:
    end = time.monotonic() + 5
    while beats() and time.monotonic() < end:
        time.sleep(0.001)
    assert beats() == []


# Taking it


def test_the_first_gets_it_and_the_second_is_told_who_when_and_where(
    objects: MemoryObjects, clock: Clock
) -> None:
    with acquire(objects, owner=Owner.current("a run"), timing=clock.timing()) as lock:
        clock.seconds = 3
        with pytest.raises(LockedError) as refused:
            acquire(objects, timing=clock.timing())
        owner = lock.owner
        assert str(refused.value) == (
            f"memory: is being written by process {os.getpid()} of {owner.user}@{owner.host} since "
            "2026-11-21 12:00:00 UTC (last sign of life 3 s ago); wait for it, or stop it and try "
            "again"
        )
        assert clock.seconds == 3
        assert not lock.lost
        assert isinstance(refused.value, OutputError)
        assert refused.value.exit_code == OutputError.exit_code
    assert objects.stored == {}
    acquire(objects, timing=clock.timing()).release()


def test_what_is_stored_says_everything(objects: MemoryObjects, clock: Clock) -> None:
    with acquire(objects, owner=Owner.current("segment\n" + "x" * 999), timing=clock.timing()):
        record = LockRecord.parse(objects.stored[LOCK_KEY])
    assert record is not None
    assert (record.format_version, record.beat, record.since) == (1, 0, START)
    owner = record.owner
    assert owner.pid == os.getpid()
    assert owner.runs()
    assert owner.what.startswith("segment xxx")
    started = psutil.Process().create_time() - psutil.boot_time()
    assert owner.started == pytest.approx(started, abs=1)


def test_a_process_that_is_gone_loses_it_at_once(objects: MemoryObjects, clock: Clock) -> None:
    objects.put(LOCK_KEY, record_of(dead()).to_bytes())
    with acquire(objects, timing=clock.timing()):
        assert clock.seconds == 0


def test_a_process_id_that_is_used_again_is_another_process(
    objects: MemoryObjects, clock: Clock
) -> None:
    owner = Owner.current()
    earlier = owner.model_copy(update={"started": owner.started - 1000})
    objects.put(LOCK_KEY, record_of(earlier).to_bytes())
    with acquire(objects, timing=clock.timing()):
        assert clock.seconds == 0


def test_a_zombie_is_gone(objects: MemoryObjects, clock: Clock) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        child = psutil.Process(process.pid)
        started = child.create_time() - psutil.boot_time()
        owner = Owner.current().model_copy(update={"pid": process.pid, "started": started})
        objects.put(LOCK_KEY, record_of(owner).to_bytes())
        with pytest.raises(LockedError, match=f"process {process.pid} of"):
            acquire(objects, timing=clock.timing())
        process.kill()
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.001)
        with acquire(objects, timing=clock.timing()):
            assert clock.seconds == 0


@pytest.mark.parametrize("field", ["host", "machine"])
def test_the_same_process_id_on_another_machine_says_nothing(
    objects: MemoryObjects, clock: Clock, field: str
) -> None:
    objects.put(LOCK_KEY, record_of(dead().model_copy(update={field: "other"})).to_bytes())
    with acquire(objects, timing=clock.timing()):
        assert 30 <= clock.seconds <= 31


def test_a_process_that_the_system_hides_is_watched(
    objects: MemoryObjects, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    objects.put(LOCK_KEY, record_of(dead()).to_bytes())
    with acquire(objects, timing=clock.timing()):
        assert 30 <= clock.seconds <= 31


# Watching whether it changes


def test_a_clock_that_was_set_back_is_no_sign_of_life(objects: MemoryObjects, clock: Clock) -> None:
    objects.put(LOCK_KEY, record_of(Owner.current(), START + timedelta(hours=1)).to_bytes())
    with acquire(objects, timing=clock.timing()):
        assert 30 <= clock.seconds <= 31


@pytest.mark.parametrize(
    ("age", "patience"), [(0, 30), (29, 30), (31, 10), (1e6, 10), (-3600, 30), (-1e6, 30)]
)
def test_silence_elsewhere_is_waited_out(
    objects: MemoryObjects, clock: Clock, age: float, patience: float
) -> None:
    record = record_of(elsewhere(), START - timedelta(seconds=age))
    objects.put(LOCK_KEY, record.to_bytes())
    with acquire(objects, timing=clock.timing()) as lock:
        assert patience <= clock.seconds <= patience + 1
        assert objects.token() == token_of(lock) != record.token
        stored = LockRecord.parse(objects.stored[LOCK_KEY])
        assert stored is not None
        assert stored.beat_time == clock.now()


@pytest.mark.parametrize("skew", [0, -3600, 3600])
def test_a_heartbeat_elsewhere_is_noticed_whatever_its_clock_says(
    objects: MemoryObjects, clock: Clock, skew: float
) -> None:
    def beat(number: int) -> None:
        at = clock.now() + timedelta(seconds=skew)
        objects.put(LOCK_KEY, record_of(elsewhere(), at, number).to_bytes())

    beat(0)
    clock.events = [(4.9 + 5 * number, lambda n=number: beat(n + 1)) for number in range(9)]  # type: ignore[misc]
    with pytest.raises(LockedError, match=r"process 77 of ana@node7 .*life 0 s ago"):
        acquire(objects, timing=clock.timing())
    assert clock.seconds <= 6


def test_a_stopped_process_loses_it(objects: MemoryObjects, clock: Clock) -> None:
    objects.put(LOCK_KEY, record_of(Owner.current()).to_bytes())
    clock.seconds = 29
    with pytest.raises(LockedError, match="29 s ago"):
        acquire(objects, timing=clock.timing())
    clock.seconds = 31
    with acquire(objects, timing=clock.timing()):
        assert 41 <= clock.seconds <= 42


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\x00",
        record_of(elsewhere()).to_bytes()[:-20],
        record_of(elsewhere()).to_bytes().replace(b'version": 1', b'version": 2'),
        record_of(elsewhere()).to_bytes().replace(b"node7", b"node\\n7"),
        record_of(elsewhere()).to_bytes().replace(b'pid": 77', b'pid": -1'),
        record_of(elsewhere()).to_bytes().replace(b"2026", b"26"),
    ],
)
def test_a_damaged_lock_is_waited_out(objects: MemoryObjects, clock: Clock, content: bytes) -> None:
    assert LockRecord.parse(content) is None
    objects.put(LOCK_KEY, content)
    with acquire(objects, timing=clock.timing()):
        assert 30 <= clock.seconds <= 31


def test_a_lock_of_another_version_that_beats_is_respected(
    objects: MemoryObjects, clock: Clock
) -> None:
    objects.put(LOCK_KEY, b"one")
    clock.events = [(5, lambda: objects.put(LOCK_KEY, b"two"))]
    with pytest.raises(LockedError, match="another version of wsi-unet; wait") as refused:
        acquire(objects, timing=clock.timing())
    assert "\n" not in str(refused.value)
    assert clock.seconds <= 6


def test_a_lock_released_meanwhile_is_free(objects: MemoryObjects, clock: Clock) -> None:
    objects.put(LOCK_KEY, record_of(elsewhere()).to_bytes())
    clock.events = [(7.5, lambda: objects.delete(LOCK_KEY))]
    with acquire(objects, timing=clock.timing()):
        assert clock.seconds == 8


def test_a_dead_run_that_someone_else_takes_over_is_theirs(
    objects: MemoryObjects, clock: Clock
) -> None:
    objects.put(LOCK_KEY, record_of(dead()).to_bytes())
    other = record_of(Owner.current(), token="quicker")

    def be_quicker(name: str) -> None:
        if name == "swap":
            objects.stored[LOCK_KEY] = other.to_bytes()

    objects.before = be_quicker
    with pytest.raises(LockedError):
        acquire(objects, timing=clock.timing())
    assert objects.token() == "quicker"


def test_a_lock_that_neither_stays_nor_goes_is_no_endless_loop(
    tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / ".wsi_unet").mkdir()
    (tmp_path / LOCK_KEY).symlink_to("nowhere")
    with pytest.raises(LockedError, match="neither stays nor goes"):
        acquire(open_objects(tmp_path), timing=clock.timing(stale=0))
    assert clock.seconds < 12


# Keeping it


def test_a_beat_replaces_it_by_something_new(objects: MemoryObjects, clock: Clock) -> None:
    with acquire(objects, timing=clock.timing()) as lock:
        contents = {objects.stored[LOCK_KEY]}
        for number in range(1, 4):
            clock.seconds += 5
            assert lock.beat() == 5
            record = LockRecord.parse(objects.stored[LOCK_KEY])
            assert record is not None
            assert (record.beat, record.beat_time) == (number, clock.now())
            assert record.since == START
            contents.add(objects.stored[LOCK_KEY])
        assert len(contents) == 4
    assert objects.stored == {}


@pytest.mark.parametrize("other", [record_of(elsewhere()).to_bytes(), b"damaged", None])
def test_a_lock_that_is_no_longer_ours_is_left_alone(
    objects: MemoryObjects, clock: Clock, other: bytes | None
) -> None:
    lock = acquire(objects, timing=clock.timing())
    objects.stored = {} if other is None else {LOCK_KEY: other}
    before = dict(objects.stored)
    assert not lock.lost
    assert lock.beat() is None
    assert lock.lost
    assert lock.beat() is None
    lock.release()
    assert lock.lost
    assert objects.stored == before


def test_another_lock_survives_a_release_without_a_beat_before(
    objects: MemoryObjects, clock: Clock
) -> None:
    lock = acquire(objects, timing=clock.timing())
    objects.put(LOCK_KEY, record_of(elsewhere()).to_bytes())
    lock.release()
    assert objects.token() == "theirs"


@pytest.mark.parametrize("error", [OutputError("no route to host"), ValueError("a bug")])
def test_a_store_that_fails_for_a_while_costs_nothing(
    objects: MemoryObjects, clock: Clock, error: Exception
) -> None:
    def fail(name: str) -> None:
        raise error

    with acquire(objects, timing=clock.timing()) as lock:
        clock.seconds = 5
        assert lock.beat() == 5
        objects.before = fail
        for clock.seconds in (10, 20, 34):
            assert lock.beat() == 5
            assert not lock.lost
        objects.before = lambda name: None
        clock.seconds = 34.5
        assert lock.beat() == 5
        objects.before = fail
        clock.seconds = 64
        assert lock.beat() == 5
        clock.seconds = 64.5
        assert lock.beat() is None
        assert lock.lost
        objects.before = lambda name: None
    assert objects.stored == {}


def test_a_release_that_fails_is_no_error(objects: MemoryObjects, clock: Clock) -> None:
    def fail(name: str) -> None:
        raise OutputError("no route to host")

    with acquire(objects, timing=clock.timing()):
        objects.before = fail
    objects.before = lambda name: None
    clock.seconds = 31
    with acquire(objects, timing=clock.timing()):
        assert clock.seconds <= 42


@pytest.mark.parametrize("answer", ["an error", "no"])
@pytest.mark.parametrize("operation", ["beat", "release"])
def test_an_answer_that_gets_lost_loses_no_lock(
    objects: MemoryObjects,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    operation: str,
) -> None:
    swap, calls = objects.swap, []

    def lose_the_first_answer(key: str, expected: bytes, data: bytes | None) -> bool:
        calls.append(data)
        done = swap(key, expected, data)
        if len(calls) > 1:
            return done
        if answer == "no":  # asked again, the store finds what it was told the first time
            return False
        raise OutputError("the connection was reset")

    lock = acquire(objects, timing=clock.timing())
    monkeypatch.setattr(objects, "swap", lose_the_first_answer)
    if operation == "beat":
        clock.seconds = 5
        assert lock.beat() == 5
        clock.seconds = 10
        assert lock.beat() == 5
        record = LockRecord.parse(objects.stored[LOCK_KEY])
        assert record is not None
        assert record.beat_time == clock.now()
        assert not lock.lost
    lock.release()
    assert objects.stored == {}


def test_a_lock_that_was_created_after_all_is_ours(
    objects: MemoryObjects, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = objects.create
    monkeypatch.setattr(objects, "create", lambda key, data: create(key, data) and False)
    with acquire(objects, timing=clock.timing()) as lock:
        assert objects.token() == token_of(lock)
    assert objects.stored == {}


def test_releasing_twice_is_no_error(objects: MemoryObjects, clock: Clock) -> None:
    with acquire(objects, timing=clock.timing()) as lock:
        lock.release()
        other = acquire(objects, timing=clock.timing())
    assert objects.token() == token_of(other)
    other.release()
    assert lock.beat() is None
    assert not lock.lost


def test_it_cannot_be_pickled_or_copied(objects: MemoryObjects, clock: Clock) -> None:
    with acquire(objects, timing=clock.timing()) as lock:
        for attempt in (lambda: pickle.dumps(lock), lambda: copy.copy(lock)):
            with pytest.raises(TypeError, match="can't be pickled; pass on the output's location"):
                attempt()


# The thread


def test_one_thread_beats_for_all_and_ends_with_the_last() -> None:
    wait_until_no_thread_beats()
    everything = [MemoryObjects() for _ in range(20)]
    locks = [acquire(objects, timing=Timing(0.02, 10)) for objects in everything]
    assert len(beats()) == 1
    end = time.monotonic() + 10
    for objects in everything:
        while b'"beat": 3' not in objects.stored[LOCK_KEY]:
            assert time.monotonic() < end
            time.sleep(0.005)
    for lock in locks:
        assert len(beats()) == 1
        lock.release()
    wait_until_no_thread_beats()
    assert all(objects.stored == {} for objects in everything)


def test_the_thread_ends_when_all_locks_are_lost() -> None:
    objects = MemoryObjects()
    lock = acquire(objects, timing=Timing(0.01, 10))
    objects.stored.clear()
    wait_until_no_thread_beats()
    assert lock.lost
    with acquire(objects, timing=Timing(0.01, 10)):
        assert len(beats()) == 1


def test_thousands_of_locks_leave_nothing(objects: MemoryObjects) -> None:
    with acquire(MemoryObjects()):
        before = threading.active_count()
        for _ in range(3000):
            with acquire(objects):
                pass
        assert threading.active_count() == before
    assert not HEARTBEAT._due
    wait_until_no_thread_beats()
    for _ in range(300):  # each with a thread of its own
        with acquire(objects):
            pass
    wait_until_no_thread_beats()


def test_it_beats_while_the_interpreter_is_busy() -> None:
    objects = MemoryObjects()
    with acquire(objects, timing=Timing(0.05, 10)):
        end = time.monotonic() + 1
        while time.monotonic() < end:
            sum(range(1000))
        record = LockRecord.parse(objects.stored[LOCK_KEY])
    assert record is not None
    assert record.beat >= 5


def test_a_store_that_hangs_holds_up_nothing_but_beats(objects: MemoryObjects) -> None:
    hanging = threading.Event()
    released = threading.Event()

    def hang(name: str) -> None:
        if threading.current_thread().name == THREAD_NAME:
            hanging.set()
            released.wait(10)

    lock = acquire(objects, timing=Timing(0.01, 10))
    objects.before = hang
    assert hanging.wait(10)
    assert not lock.lost
    acquire(MemoryObjects()).release()
    released.set()
    lock.release()
    assert objects.stored == {}


# What lies around it


def test_the_lock_is_no_part_of_the_output(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "out.ome.zarr")
    with acquire(objects):
        assert not layout.check_output(objects)
        layout.ensure_root(objects, {"slide": "a slide"})
        assert layout.check_output(objects)
        run = RunRecord(name="nuclei", signature="", parameters={}, created="")
        Progress(objects, "nuclei").write_run(run)
        before = objects.get(LOCK_KEY)
        layout.remove_labels(objects, "nuclei")
        layout.remove_all(objects)
        assert objects.get(LOCK_KEY) == before
    assert sorted(objects.list("")) == [".wsi_unet/zarr.json", "zarr.json"]
    assert list((objects.root / ".wsi_unet/.tmp").iterdir()) == []


def test_no_label_group_can_take_its_place() -> None:
    with pytest.raises(OptionError, match="can't name a label group"):
        layout.check_name("lock.json")


def test_what_was_made_for_the_lock_goes_with_it(tmp_path: Path) -> None:
    objects = open_objects(tmp_path / "new" / "folder" / "out.ome.zarr")
    with acquire(objects) as lock:
        assert lock.beat() == HEARTBEAT_SECONDS
        objects.clean()
        with pytest.raises(LockedError):
            acquire(objects)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_there_before_stay(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.docx").write_text("years of work")
    for name in ("empty", "theirs", "theirs/out.ome.zarr"):
        acquire(open_objects(tmp_path / name)).release()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["empty", "theirs", "theirs/thesis.docx"]


def test_what_a_killed_run_made_goes_when_its_successor_is_refused(tmp_path: Path) -> None:
    objects = open_objects(tmp_path / "new" / "out.ome.zarr")
    objects.create(LOCK_KEY, record_of(dead()).to_bytes())
    acquire(objects).release()
    assert list(tmp_path.iterdir()) == []

"""Taking the lock of an output, by a clock that only waiting advances."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta

import psutil
import pytest
from support.locks import (
    START,
    Clock,
    MemoryStore,
    dead,
    elsewhere,
    record_of,
    token_of,
)

from wsi_unet.errors import LockedError, OutputError
from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.locking.lock import (
    LockOwner,
    LockRecord,
    acquire,
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


# Taking it


def test_the_first_gets_it_and_the_second_is_told_who_when_and_where(
    store: MemoryStore, clock: Clock
) -> None:
    with acquire(store, owner=LockOwner.current("a run"), timing=clock.timing()) as lock:
        clock.seconds = 3
        with pytest.raises(LockedError) as refused:
            acquire(store, timing=clock.timing())
        owner = lock.owner
        assert str(refused.value) == (
            f"memory: is being written by process {os.getpid()} of {owner.user}@{owner.host} since "
            "2026-11-21 12:00:00 UTC (last heartbeat 3 s ago); wait for it, or stop it and try "
            "again"
        )
        assert clock.seconds == 3
        assert not lock.lost
        assert isinstance(refused.value, OutputError)
        assert refused.value.exit_code == 1  # nothing is wrong with the output; try later
    assert store.stored == {}
    acquire(store, timing=clock.timing()).release()


def test_what_is_stored_says_everything(store: MemoryStore, clock: Clock) -> None:
    with acquire(store, owner=LockOwner.current("segment\n" + "x" * 999), timing=clock.timing()):
        record = LockRecord.parse(store.stored[LOCK_KEY])
    assert record is not None
    assert (record.format_version, record.beat, record.since) == (1, 0, START)
    owner = record.owner
    assert owner.pid == os.getpid()
    assert owner.is_running()
    assert owner.what.startswith("segment xxx")
    started = psutil.Process().create_time() - psutil.boot_time()
    assert owner.started == pytest.approx(started, abs=1)


def test_a_process_that_is_gone_loses_it_at_once(store: MemoryStore, clock: Clock) -> None:
    store.put(LOCK_KEY, record_of(dead()).to_bytes())
    with acquire(store, timing=clock.timing()):
        assert clock.seconds == 0


def test_a_process_id_that_is_used_again_is_another_process(
    store: MemoryStore, clock: Clock
) -> None:
    owner = LockOwner.current()
    earlier = owner.model_copy(update={"started": owner.started - 1000})
    store.put(LOCK_KEY, record_of(earlier).to_bytes())
    with acquire(store, timing=clock.timing()):
        assert clock.seconds == 0


def test_a_zombie_is_gone(store: MemoryStore, clock: Clock) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        child = psutil.Process(process.pid)
        started = child.create_time() - psutil.boot_time()
        owner = LockOwner.current().model_copy(update={"pid": process.pid, "started": started})
        store.put(LOCK_KEY, record_of(owner).to_bytes())
        with pytest.raises(LockedError, match=f"process {process.pid} of"):
            acquire(store, timing=clock.timing())
        process.kill()
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.001)
        with acquire(store, timing=clock.timing()):
            assert clock.seconds == 0


@pytest.mark.parametrize("field", ["host", "machine"])
def test_the_same_process_id_on_another_machine_says_nothing(
    store: MemoryStore, clock: Clock, field: str
) -> None:
    store.put(LOCK_KEY, record_of(dead().model_copy(update={field: "other"})).to_bytes())
    with acquire(store, timing=clock.timing()):
        assert 30 <= clock.seconds <= 31


def test_a_process_that_the_system_hides_is_watched(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    store.put(LOCK_KEY, record_of(dead()).to_bytes())
    with acquire(store, timing=clock.timing()):
        assert 30 <= clock.seconds <= 31


# Watching whether it changes


def test_a_clock_that_was_set_back_is_no_heartbeat(store: MemoryStore, clock: Clock) -> None:
    store.put(LOCK_KEY, record_of(LockOwner.current(), START + timedelta(hours=1)).to_bytes())
    with acquire(store, timing=clock.timing()):
        assert 30 <= clock.seconds <= 31


@pytest.mark.parametrize(
    ("age", "patience"), [(0, 30), (29, 30), (31, 10), (1e6, 10), (-3600, 30), (-1e6, 30)]
)
def test_silence_elsewhere_is_waited_out(
    store: MemoryStore, clock: Clock, age: float, patience: float
) -> None:
    record = record_of(elsewhere(), START - timedelta(seconds=age))
    store.put(LOCK_KEY, record.to_bytes())
    with acquire(store, timing=clock.timing()) as lock:
        assert patience <= clock.seconds <= patience + 1
        assert store.token() == token_of(lock) != record.token
        stored = LockRecord.parse(store.stored[LOCK_KEY])
        assert stored is not None
        assert stored.beat_time == clock.now()


@pytest.mark.parametrize("skew", [0, -3600, 3600])
def test_a_heartbeat_elsewhere_is_noticed_whatever_its_clock_says(
    store: MemoryStore, clock: Clock, skew: float
) -> None:
    def beat(number: int) -> None:
        at = clock.now() + timedelta(seconds=skew)
        store.put(LOCK_KEY, record_of(elsewhere(), at, number).to_bytes())

    beat(0)
    clock.events = [(4.9 + 5 * number, lambda n=number: beat(n + 1)) for number in range(9)]  # type: ignore[misc]
    with pytest.raises(LockedError, match=r"process 77 of ana@node7 .*heartbeat 0 s ago"):
        acquire(store, timing=clock.timing())
    assert clock.seconds <= 6


def test_a_stopped_process_loses_it(store: MemoryStore, clock: Clock) -> None:
    store.put(LOCK_KEY, record_of(LockOwner.current()).to_bytes())
    clock.seconds = 29
    with pytest.raises(LockedError, match="29 s ago"):
        acquire(store, timing=clock.timing())
    clock.seconds = 31
    with acquire(store, timing=clock.timing()):
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
def test_a_damaged_lock_is_waited_out(store: MemoryStore, clock: Clock, content: bytes) -> None:
    assert LockRecord.parse(content) is None
    store.put(LOCK_KEY, content)
    with acquire(store, timing=clock.timing()):
        assert 30 <= clock.seconds <= 31


def test_a_lock_of_another_version_that_beats_is_respected(
    store: MemoryStore, clock: Clock
) -> None:
    store.put(LOCK_KEY, b"one")
    clock.events = [(5, lambda: store.put(LOCK_KEY, b"two"))]
    with pytest.raises(LockedError, match="another version of wsi-unet; wait") as refused:
        acquire(store, timing=clock.timing())
    assert "\n" not in str(refused.value)
    assert clock.seconds <= 6


def test_a_lock_released_meanwhile_is_free(store: MemoryStore, clock: Clock) -> None:
    store.put(LOCK_KEY, record_of(elsewhere()).to_bytes())
    clock.events = [(7.5, lambda: store.delete(LOCK_KEY))]
    with acquire(store, timing=clock.timing()):
        assert clock.seconds == 8


def test_a_dead_run_that_someone_else_takes_over_is_theirs(
    store: MemoryStore, clock: Clock
) -> None:
    store.put(LOCK_KEY, record_of(dead()).to_bytes())
    other = record_of(LockOwner.current(), token="quicker")

    def be_quicker(name: str) -> None:
        if name == "swap":
            store.stored[LOCK_KEY] = other.to_bytes()

    store.before = be_quicker
    with pytest.raises(LockedError):
        acquire(store, timing=clock.timing())
    assert store.token() == "quicker"


def test_a_lock_that_neither_stays_nor_goes_is_no_endless_loop(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "create", lambda key, data: False)
    with pytest.raises(LockedError, match="keeps changing"):
        acquire(store, timing=clock.timing(stale=0))
    assert clock.seconds < 12


def test_a_lock_that_was_created_after_all_is_ours(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = store.create
    monkeypatch.setattr(store, "create", lambda key, data: create(key, data) and False)
    with acquire(store, timing=clock.timing()) as lock:
        assert store.token() == token_of(lock)
    assert store.stored == {}

"""Keeping the lock of an output: heartbeats, what ends them, and the thread that sends them."""

from __future__ import annotations

import copy
import pickle
import threading
import time

import pytest
from support.locks import (
    START,
    Clock,
    MemoryStore,
    elsewhere,
    record_of,
    token_of,
)

from wsi_unet.errors import OutputError
from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.locking.heartbeat import HEARTBEAT, THREAD_NAME
from wsi_unet.storage.locking.lock import (
    LockRecord,
    Timing,
    acquire,
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def beats() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def wait_until_no_thread_beats() -> None:
    end = time.monotonic() + 60
    while beats() and time.monotonic() < end:
        time.sleep(0.001)
    assert beats() == []


# Keeping it


def test_a_beat_replaces_it_by_something_new(store: MemoryStore, clock: Clock) -> None:
    with acquire(store, timing=clock.timing()) as lock:
        contents = {store.stored[LOCK_KEY]}
        for number in range(1, 4):
            clock.seconds += 5
            assert lock.beat() == 5
            record = LockRecord.parse(store.stored[LOCK_KEY])
            assert record is not None
            assert (record.beat, record.beat_time) == (number, clock.now())
            assert record.since == START
            contents.add(store.stored[LOCK_KEY])
        assert len(contents) == 4
    assert store.stored == {}


@pytest.mark.parametrize("other", [record_of(elsewhere()).to_bytes(), b"damaged", None])
def test_a_lock_that_is_no_longer_ours_is_left_alone(
    store: MemoryStore, clock: Clock, other: bytes | None
) -> None:
    lock = acquire(store, timing=clock.timing())
    store.stored = {} if other is None else {LOCK_KEY: other}
    before = dict(store.stored)
    assert not lock.lost
    assert lock.beat() is None
    assert lock.lost
    assert lock.beat() is None
    lock.release()
    assert lock.lost
    assert store.stored == before


def test_another_lock_survives_a_release_without_a_beat_before(
    store: MemoryStore, clock: Clock
) -> None:
    lock = acquire(store, timing=clock.timing())
    store.put(LOCK_KEY, record_of(elsewhere()).to_bytes())
    lock.release()
    assert store.token() == "theirs"


@pytest.mark.parametrize("error", [OutputError("no route to host"), ValueError("a bug")])
def test_a_store_that_fails_for_a_while_costs_nothing(
    store: MemoryStore, clock: Clock, error: Exception
) -> None:
    def fail(name: str) -> None:
        raise error

    with acquire(store, timing=clock.timing()) as lock:
        clock.seconds = 5
        assert lock.beat() == 5
        store.before = fail
        for clock.seconds in (10, 20, 34):
            assert lock.beat() == 5
            assert not lock.lost
        store.before = lambda name: None
        clock.seconds = 34.5
        assert lock.beat() == 5
        store.before = fail
        clock.seconds = 64
        assert lock.beat() == 5
        clock.seconds = 64.5
        assert lock.beat() is None
        assert lock.lost
        store.before = lambda name: None
    assert store.stored == {}


def test_a_release_that_fails_is_no_error(store: MemoryStore, clock: Clock) -> None:
    def fail(name: str) -> None:
        raise OutputError("no route to host")

    with acquire(store, timing=clock.timing()):
        store.before = fail
    store.before = lambda name: None
    clock.seconds = 31
    with acquire(store, timing=clock.timing()):
        assert clock.seconds <= 42


@pytest.mark.parametrize("answer", ["an error", "no"])
@pytest.mark.parametrize("operation", ["beat", "release"])
def test_an_answer_that_gets_lost_loses_no_lock(
    store: MemoryStore,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    operation: str,
) -> None:
    swap, calls = store.swap, []

    def lose_the_first_answer(key: str, expected: bytes, data: bytes | None) -> bool:
        calls.append(data)
        done = swap(key, expected, data)
        if len(calls) > 1:
            return done
        if answer == "no":  # asked again, the store finds what it was told the first time
            return False
        raise OutputError("the connection was reset")

    lock = acquire(store, timing=clock.timing())
    monkeypatch.setattr(store, "swap", lose_the_first_answer)
    if operation == "beat":
        clock.seconds = 5
        assert lock.beat() == 5
        clock.seconds = 10
        assert lock.beat() == 5
        record = LockRecord.parse(store.stored[LOCK_KEY])
        assert record is not None
        assert record.beat_time == clock.now()
        assert not lock.lost
    lock.release()
    assert store.stored == {}


def test_releasing_twice_is_no_error(store: MemoryStore, clock: Clock) -> None:
    with acquire(store, timing=clock.timing()) as lock:
        lock.release()
        other = acquire(store, timing=clock.timing())
    assert store.token() == token_of(other)
    other.release()
    assert lock.beat() is None
    assert not lock.lost


def test_it_cannot_be_pickled_or_copied(store: MemoryStore, clock: Clock) -> None:
    with acquire(store, timing=clock.timing()) as lock:
        for attempt in (lambda: pickle.dumps(lock), lambda: copy.copy(lock)):
            with pytest.raises(TypeError, match="can't be pickled; pass on the output's location"):
                attempt()


# The thread


def test_one_thread_beats_for_all_and_ends_with_the_last() -> None:
    wait_until_no_thread_beats()
    everything = [MemoryStore() for _ in range(20)]
    locks = [acquire(store, timing=Timing(0.02, 10)) for store in everything]
    assert len(beats()) == 1
    end = time.monotonic() + 60
    for store in everything:
        while b'"beat": 3' not in store.stored[LOCK_KEY]:
            assert time.monotonic() < end
            time.sleep(0.005)
    for lock in locks:
        assert len(beats()) == 1
        lock.release()
    wait_until_no_thread_beats()
    assert all(store.stored == {} for store in everything)


def test_the_thread_ends_when_all_locks_are_lost() -> None:
    store = MemoryStore()
    lock = acquire(store, timing=Timing(0.01, 10))
    store.stored.clear()
    wait_until_no_thread_beats()
    assert lock.lost
    with acquire(store, timing=Timing(0.01, 10)):
        assert len(beats()) == 1


def test_thousands_of_locks_leave_nothing(store: MemoryStore) -> None:
    with acquire(MemoryStore()):
        before = threading.active_count()
        for _ in range(3000):
            with acquire(store):
                pass
        assert threading.active_count() == before
    assert not HEARTBEAT._due
    wait_until_no_thread_beats()
    for _ in range(300):  # each with a thread of its own
        with acquire(store):
            pass
    wait_until_no_thread_beats()


def test_it_beats_while_the_interpreter_is_busy() -> None:
    store = MemoryStore()
    with acquire(store, timing=Timing(0.05, 10)):
        end = time.monotonic() + 1
        while time.monotonic() < end:
            sum(range(1000))
        record = LockRecord.parse(store.stored[LOCK_KEY])
    assert record is not None
    assert record.beat >= 5


def test_a_store_that_hangs_holds_up_nothing_but_beats(store: MemoryStore) -> None:
    hanging = threading.Event()
    released = threading.Event()

    def hang(name: str) -> None:
        if threading.current_thread().name == THREAD_NAME:
            hanging.set()
            released.wait(10)

    lock = acquire(store, timing=Timing(0.01, 10))
    store.before = hang
    assert hanging.wait(10)
    assert not lock.lost
    acquire(MemoryStore()).release()
    released.set()
    lock.release()
    assert store.stored == {}

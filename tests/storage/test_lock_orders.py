"""Several processes that want the same lock, in every order of their steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest
from support.locks import (
    Clock,
    MemoryStore,
    dead,
    elsewhere,
    record_of,
    token_of,
)

from wsi_unet.errors import LockedError
from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.locking.lock import (
    OutputLock,
    Timing,
    acquire,
)


class Turns:
    """A scheduler of threads: one step at a time, in an order chosen step by step."""

    def __init__(self, actors: dict[str, Callable[[], object]], store: MemoryStore) -> None:
        self.may_go = {name: threading.Semaphore(0) for name in actors}
        self.arrived = threading.Semaphore(0)
        self.live = sorted(actors)
        self.errors: list[BaseException] = []
        store.before = self._step
        self.threads = [
            threading.Thread(target=self._act, args=item, name=item[0]) for item in actors.items()
        ]

    def _step(self, operation: str) -> None:
        name = threading.current_thread().name
        if name in self.may_go:
            self.arrived.release()
            self.may_go[name].acquire()

    def _act(self, name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self.errors.append(error)
        self.live.remove(name)
        self.arrived.release()

    def run(self, choose: Callable[[int], int]) -> None:
        for thread in self.threads:
            thread.start()
            self.arrived.acquire()
        while self.live:
            self.may_go[self.live[choose(len(self.live))]].release()
            self.arrived.acquire()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def every_order() -> Iterator[Callable[[int], int]]:
    """Yield functions that choose among n, until every sequence of choices has been made."""
    prefix: list[int] = []
    while True:
        made: list[tuple[int, int]] = []
        yield partial(follow, prefix, made)
        while made and made[-1][0] == made[-1][1] - 1:
            made.pop()
        if not made:
            return
        prefix = [choice for choice, _ in made[:-1]] + [made[-1][0] + 1]


def follow(prefix: list[int], made: list[tuple[int, int]], number: int) -> int:
    """Choose what `prefix` says, and 0 where it ends."""
    choice = prefix[len(made)] if len(made) < len(prefix) else 0
    made.append((choice, number))
    return choice


def take(store: MemoryStore, clock: Clock, held: list[OutputLock]) -> None:
    def sleep(seconds: float) -> None:
        clock.sleep(5001 if seconds == 1 else 0)  # watching once is long enough: few steps

    timing = Timing(100, 5000, clock.now, clock.monotonic, sleep)
    with suppress(LockedError):
        held.append(acquire(store, timing=timing))


def takers(
    store: MemoryStore, clock: Clock, held: list[OutputLock]
) -> dict[str, Callable[[], object]]:
    return {name: partial(take, store, clock, held) for name in "ab"}


@pytest.mark.parametrize("start", ["nothing", "dead", "silent", "damaged"])
def test_in_every_order_one_of_two_takers_wins(start: str) -> None:
    orders = 0
    for choose in every_order():
        orders += 1
        store, clock, held = MemoryStore(), Clock(), list[OutputLock]()
        if start != "nothing":
            record = record_of(dead() if start == "dead" else elsewhere())
            store.put(LOCK_KEY, b"" if start == "damaged" else record.to_bytes())
        actors = takers(store, clock, held)
        Turns(actors, store).run(choose)
        (lock,) = held
        assert store.token() == token_of(lock)
        assert lock.beat()
        lock.release()
        assert store.stored == {}
    assert orders >= 6


def test_in_every_order_a_suspended_owner_keeps_it_or_knows_that_it_is_lost() -> None:
    """The owner wakes up and beats, or ends, while two others think that it is dead."""
    outcomes = set()
    for ends in (False, True):
        for choose in every_order():
            store, clock, held = MemoryStore(), Clock(), list[OutputLock]()
            owner = acquire(store, owner=elsewhere(), timing=Timing(100, 5000, clock.now))
            clock.seconds = 5001
            actors = takers(store, clock, held)
            actors["owner"] = owner.release if ends else owner.beat
            Turns(actors, store).run(choose)
            store.before = lambda name: None
            owner.beat()
            alive = [lock for lock in [owner, *held] if lock.beat()]
            assert len(alive) <= 1
            assert store.token() == (token_of(alive[0]) if alive else None)
            outcomes.add((ends, "owner" if owner in alive else len(alive)))
            assert owner.lost == (not ends and owner not in alive)
            for lock in [owner, *held]:
                lock.release()
            assert store.stored == {}
    assert outcomes == {(False, "owner"), (False, 1), (True, 1)}

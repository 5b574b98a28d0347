"""What a process keeps open between its tasks: files, images, models.

Whatever is costly to open is kept by one class, so that it is opened once however many threads ask
for it, is dropped by one rule, and never reaches another process.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ProcessCache(Generic[T]):
    """A cache by key that drops the least recently used values; threads may share it.

    A value is made by one thread while others that want it wait; other keys don't wait. Values
    belong to the process that made them: a pickled cache, and one that a forked process inherits,
    is empty.

    >>> cache = ProcessCache[str](capacity=2)
    >>> cache.get("a", lambda: "made"), cache.get("a", lambda: "made again")
    ('made', 'made')

    Args:
        capacity: what all values together may cost. The value used last stays, whatever it costs.
        close: closes a value that was dropped, once nobody uses it; None leaves that to Python.
            It has to be importable by name if the cache is pickled.
    """

    def __init__(self, capacity: int, close: Callable[[T], object] | None = None) -> None:
        self._capacity = capacity
        self._close = close
        self._by_process: dict[int, _Slots[T]] = {}

    @contextmanager
    def use(self, key: Hashable, make: Callable[[], T], cost: int = 1) -> Iterator[T]:
        """Yield the value of `key`; it isn't closed while the context lasts.

        Args:
            key: names the value.
            make: makes it, if it isn't there yet.
            cost: what it takes of the capacity.
        """
        shelf = self._own_slots()
        slot, dropped = shelf.enter(key, cost, self._capacity)
        try:
            for unused in dropped:
                self._close_slot(unused)
            yield slot.fill(make)
        finally:
            if shelf.leave(key, slot):
                self._close_slot(slot)

    def get(self, key: Hashable, make: Callable[[], T], cost: int = 1) -> T:
        """Return the value of `key`; for values that needn't be closed. See `use`."""
        with self.use(key, make, cost) as value:
            return value

    def release(self, key: Hashable) -> T | None:
        """Forget the value of `key` and return it, so that the caller can close it.

        It waits for a value that is being made, and returns None if there is none.
        """
        return self._own_slots().release(key)

    def _own_slots(self) -> _Slots[T]:
        """Return this process's values; a child forgets those that it inherited."""
        process = os.getpid()
        shelf = self._by_process.setdefault(process, _Slots())
        for other in set(self._by_process) - {process}:
            self._by_process.pop(other, None)
        return shelf

    def _close_slot(self, slot: _Slot[T]) -> None:
        if self._close is not None and slot.value:
            self._close(slot.value[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._capacity, self._close)


class _Slot(Generic[T]):
    """One value, made under its own lock.

    Attributes:
        cost: what the value takes of the capacity.
        lock: held while the value is made.
        value: the value, or nothing yet.
        users: how many use it now, or wait for it.
        dropped: whether the last user is to close it.
    """

    def __init__(self, cost: int) -> None:
        self.cost = cost
        self.lock = Lock()
        self.value: tuple[T] | tuple[()] = ()
        self.users = 0
        self.dropped = False

    def fill(self, make: Callable[[], T]) -> T:
        """Return the value, made if there is none."""
        with self.lock:
            self.value = self.value or (make(),)
            return self.value[0]


class _Slots(Generic[T]):
    """The slots of one process, the least recently used one first."""

    def __init__(self) -> None:
        self._slots: OrderedDict[Hashable, _Slot[T]] = OrderedDict()
        self._lock = Lock()

    def enter(self, key: Hashable, cost: int, capacity: int) -> tuple[_Slot[T], list[_Slot[T]]]:
        """Add a user to the slot of `key`; return the slot, and the dropped slots to close."""
        unused = []
        with self._lock:
            slot = self._slots.setdefault(key, _Slot(cost))
            slot.users += 1
            self._slots.move_to_end(key)
            total = sum(kept.cost for kept in self._slots.values())
            while total > capacity and len(self._slots) > 1:
                _, old = self._slots.popitem(last=False)
                total -= old.cost
                old.dropped = True
                if not old.users:
                    unused.append(old)
        return slot, unused

    def leave(self, key: Hashable, slot: _Slot[T]) -> bool:
        """Remove a user of a slot; return whether the slot is to be closed now."""
        with self._lock:
            slot.users -= 1
            if not slot.users and not slot.value and self._slots.get(key) is slot:
                del self._slots[key]  # making it failed
            return slot.dropped and not slot.users

    def release(self, key: Hashable) -> T | None:
        """Take the slot of `key` out and return its value, waiting for one that is being made."""
        with self._lock:
            slot = self._slots.pop(key, None)
        if slot is None:
            return None
        with slot.lock:
            slot.dropped = not slot.value  # the thread that makes it now is the last to use it
            return slot.value[0] if slot.value else None

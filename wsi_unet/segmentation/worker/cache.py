"""What a process keeps between tasks, made once however many threads ask at the same time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class _Slot(Generic[T]):
    """One value, made under its own lock so that other keys needn't wait for it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.value: T | None = None
        self.users = 0
        self.dropped = False


class Resident(Generic[T]):
    """At most `capacity` values by key; beyond that the least recently used ones are dropped.

    A dropped value is closed as soon as nobody uses it.

    Args:
        capacity: how many values are kept.
        close: gives back what a value holds.
    """

    def __init__(self, capacity: int, close: Callable[[T], None] = lambda _: None) -> None:
        self._capacity = capacity
        self._close = close
        self._slots: OrderedDict[Hashable, _Slot[T]] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def use(self, key: Hashable, make: Callable[[], T]) -> Iterator[T]:
        """Give the value of `key`, made by `make` on the first call, while the context lasts."""
        slot, dropped = self._enter(key)
        try:
            for old in dropped:
                self._close_slot(old)
            with slot.lock:
                if slot.value is None:
                    slot.value = make()
                value = slot.value
            yield value
        finally:
            if self._leave(slot):
                self._close_slot(slot)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of `key`, made by `make` on the first call; for what isn't closed."""
        with self.use(key, make) as value:
            return value

    def release(self, key: Hashable) -> T | None:
        """Forget the value of `key` and return it, so that the caller can close it.

        One that is being made is waited for.
        """
        with self._lock:
            slot = self._slots.pop(key, None)
        if slot is None:
            return None
        with slot.lock:
            slot.dropped = slot.value is None  # who makes it now is the last to use it
            return slot.value

    def _enter(self, key: Hashable) -> tuple[_Slot[T], list[_Slot[T]]]:
        """Return the slot of `key`, now with one user more, and slots to be closed for it."""
        unused = []
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            slot.users += 1
            self._slots.move_to_end(key)
            while len(self._slots) > self._capacity:
                _, old = self._slots.popitem(last=False)
                old.dropped = True
                if not old.users:
                    unused.append(old)
        return slot, unused

    def _leave(self, slot: _Slot[T]) -> bool:
        """Count a user less; returns whether the slot is to be closed."""
        with self._lock:
            slot.users -= 1
            return slot.dropped and not slot.users

    def _close_slot(self, slot: _Slot[T]) -> None:
        if slot.value is not None:
            self._close(slot.value)

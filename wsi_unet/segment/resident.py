"""What a process keeps between tasks, made once however many threads ask at the same time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class _Slot(Generic[T]):
    """One value, made under its own lock so that other keys needn't wait for it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.value: T | None = None


class Resident(Generic[T]):
    """At most `capacity` values by key; the least recently used one is dropped.

    A dropped value isn't closed, since another thread may still use it.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._slots: OrderedDict[Hashable, _Slot[T]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of `key`, made by `make` on the first call."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            while len(self._slots) > self._capacity:
                self._slots.popitem(last=False)
        with slot.lock:
            if slot.value is None:
                slot.value = make()
            return slot.value

    def release(self, key: Hashable) -> T | None:
        """Forget the value of `key` and return it, so that the caller can close it.

        One that is being made is waited for.
        """
        with self._lock:
            slot = self._slots.pop(key, None)
        if slot is None:
            return None
        with slot.lock:
            return slot.value

"""What a process holds open: as little as makes sense, and nothing that another one opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

MOST_OPEN = 1 << 30
"""Bytes that open files and decoded images take in each process, about."""


class Handles:
    """Opens what is needed and keeps it, until more recently used things need its place.

    Shared by several fields and safe to be used by several threads: at worst two of them open the
    same thing at once. What is pickled, or inherited by a forked process, is empty: files and
    threads belong to the process that opened them.
    """

    def __init__(self, limit: int = MOST_OPEN) -> None:
        """Begin with nothing.

        Args:
            limit: bytes that are kept.
        """
        self._limit = limit
        self._process = os.getpid()
        self._kept: dict[object, tuple[Any, int]] = {}

    def get(self, key: object, cost: int, make: Callable[[], T]) -> T:
        """Return what is kept under a key, or what is made now.

        Args:
            key: hashable.
            cost: bytes that it takes.
            make: opens it.
        """
        if self._process != os.getpid():
            self._process, self._kept = os.getpid(), {}
        found = self._kept.pop(key, None)
        made: T = make() if found is None else found[0]
        self._kept[key] = (made, cost)  # the last one used is the last one to go
        self._forget()
        return made

    def _forget(self) -> None:
        """Drop the longest unused; whoever is using it still may go on."""
        kept = list(self._kept.items())
        total = sum(cost for _, (_, cost) in kept)
        for key, (_, cost) in kept[:-1]:
            if total <= self._limit:
                break
            self._kept.pop(key, None)
            total -= cost

    def __getstate__(self) -> int:
        return self._limit

    def __setstate__(self, limit: int) -> None:
        Handles.__init__(self, limit)

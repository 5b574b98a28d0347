"""Memory for large windows that is reused.

The operating system clears fresh memory page by page. For an array of 50 MB that takes longer than
filling it: about a tenth of the time that decoding its JPEG tiles takes.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

LARGE_BYTES = 8 << 20
"""Size from which an array's memory is worth keeping."""
MAX_FREE_BUFFERS = 2
MAX_SURPLUS = 1.25
"""A buffer is reused for arrays of at least its size divided by this."""


class WindowMemory:
    """Hands out arrays, and takes their memory back when nothing refers to it any more."""

    def __init__(self) -> None:
        # The garbage collector may run `_Lease.__del__` at any moment, even in a thread that holds
        # the lock: with a plain lock that would be a deadlock.
        self._lock = threading.RLock()
        self._free: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an uninitialised uint8 array that the caller owns, like `np.empty`."""
        size = int(np.prod(shape))
        if size < LARGE_BYTES:
            return np.empty(shape, np.uint8)
        with self._lock:
            fitting = [free for free in self._free if size <= free.size <= size * MAX_SURPLUS]
            buffer = fitting[0] if fitting else None
            if buffer is not None:
                self._free = [free for free in self._free if free is not buffer]
        if buffer is None:
            buffer = np.empty(size, np.uint8)
        return np.asarray(_Lease(self, buffer, shape))

    def give_back(self, buffer: NDArray[np.uint8]) -> None:
        """Keep a buffer for the next array; drop the oldest if there are too many."""
        with self._lock:
            self._free = [*self._free, buffer][-MAX_FREE_BUFFERS:]

    def clear(self) -> None:
        """Free the buffers that aren't in use."""
        with self._lock:
            self._free = []


class _Lease:
    """The base of an array and its views; gives the buffer back when they are gone.

    numpy reads its `__array_interface__` and keeps it alive as long as the memory is in use.
    """

    def __init__(
        self, memory: WindowMemory, buffer: NDArray[np.uint8], shape: tuple[int, ...]
    ) -> None:
        self._memory = memory
        self._buffer = buffer
        interface = dict(buffer.__array_interface__)
        self.__array_interface__ = {**interface, "shape": shape, "strides": None}

    def __del__(self) -> None:
        self._memory.give_back(self._buffer)

"""Large windows in memory that is used again.

A fresh array of 50 MB costs more to be cleared page by page, by the system, than to be filled:
about a tenth of what decoding its JPEG tiles takes.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

LARGE = 8 << 20
"""Bytes from which an array's memory is worth keeping."""
FREE_BLOCKS = 2
SLACK = 1.25
"""A block is used again for arrays of at least its size divided by this."""


class WindowMemory:
    """Hands out arrays and takes their memory back when nobody refers to it any more."""

    def __init__(self) -> None:
        # The garbage collector may run `_Lease.__del__` at any moment, also in a thread that
        # holds the lock: a plain one would never be released.
        self._lock = threading.RLock()
        self._free: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an uninitialised uint8 array that the caller owns, like `np.empty`."""
        size = int(np.prod(shape))
        if size < LARGE:
            return np.empty(shape, np.uint8)
        with self._lock:
            fitting = [one for one in self._free if size <= one.size <= size * SLACK]
            block = fitting[0] if fitting else None
            if block is not None:
                self._free = [one for one in self._free if one is not block]
        return np.asarray(_Lease(self, np.empty(size, np.uint8) if block is None else block, shape))

    def give_back(self, block: NDArray[np.uint8]) -> None:
        """Keep a block for the next array, in place of the oldest one if there are enough."""
        with self._lock:
            self._free = [*self._free, block][-FREE_BLOCKS:]

    def clear(self) -> None:
        """Forget the blocks that nobody uses."""
        with self._lock:
            self._free = []


class _Lease:
    """What an array and its views refer to as their base; gives the block back when they are gone.

    numpy asks it for `__array_interface__` and keeps it alive as long as the memory is in use.
    """

    def __init__(
        self, memory: WindowMemory, block: NDArray[np.uint8], shape: tuple[int, ...]
    ) -> None:
        self._memory = memory
        self._block = block
        interface = dict(block.__array_interface__)
        self.__array_interface__ = {**interface, "shape": shape, "strides": None}

    def __del__(self) -> None:
        self._memory.give_back(self._block)

"""Memory for windows: what decoding them takes, and buffers for large ones, which are reused.

The operating system clears fresh memory page by page. For an array of 50 MB that takes longer than
filling it: about a tenth of the time that decoding its JPEG tiles takes.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Shape

LARGE_TILE = 4 << 20
"""Area from which a decoded tile is kept, px; mostly it is a strip, or all of a small image."""
BYTES_PER_PIXEL = 8
"""What a large tile takes: RGB, twice while it is decoded, or RGBA and what is cut out of it."""
LARGE_BYTES = 8 << 20
"""Size from which an array's memory is worth keeping."""
MAX_FREE_BUFFERS = 2
MAX_SURPLUS = 1.25
"""A buffer is reused for arrays of at least its size divided by this."""


def decoding_bytes(tile: Shape) -> int:
    """Return the memory that decoding takes at most in each process, one large tile at a time.

    Args:
        tile: (rows, columns) that are decoded at once, px; small ones take next to nothing.
    """
    area = tile[0] * tile[1]
    return area * BYTES_PER_PIXEL if area >= LARGE_TILE else 0


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

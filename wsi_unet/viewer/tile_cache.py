"""What is kept of the tiles that were made: a bounded number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock

CACHE_BYTES = 128 << 20
"""Bytes of encoded tiles that a server keeps, all slides together."""

ENTRY_BYTES = 512
"""What an entry takes besides its tile, about."""


class TileCache:
    """Encoded tiles by key; the least recently used ones are dropped. Threads may share it.

    Args:
        capacity: bytes that all tiles may take together.
    """

    def __init__(self, capacity: int = CACHE_BYTES) -> None:
        self._capacity = capacity
        self._tiles: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = Lock()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    def get(self, key: Hashable) -> bytes | None:
        """Return a tile, None if it isn't kept."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: Hashable, tile: bytes) -> None:
        """Keep a tile, and drop others if there are too many."""
        with self._lock:
            before = self._tiles.pop(key, None)
            if before is not None:
                self._bytes -= len(before) + ENTRY_BYTES
            self._tiles[key] = tile
            self._bytes += len(tile) + ENTRY_BYTES
            while self._bytes > self._capacity:
                _, dropped = self._tiles.popitem(last=False)
                self._bytes -= len(dropped) + ENTRY_BYTES

"""The bytes of one file, on a disk or in an object store.

A disk is read tile by tile, by whichever thread wants the tile. An object store answers after
tens of milliseconds however little is wanted, so there all ranges of a window are asked for at
once, those that lie close together in one request.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import IO, Protocol

Range = tuple[int, int]
"""(offset, length), bytes."""


class Ranges(Protocol):
    """Ranges of a file that were asked for. To be used by several threads at once."""

    def get(self, number: int) -> bytes:
        """Return the bytes of range `number`, fewer where the file ends.

        Raises:
            OSError: they can't be read.
        """

    def cancel(self) -> None:
        """Ask for no more; what is under way is forgotten."""


class ByteSource(Protocol):
    """A file that is open for reading, by several threads at once."""

    location: str
    size: int

    def request(self, ranges: Sequence[Range]) -> Ranges:
        """Ask for ranges of the file."""

    def open(self) -> str | IO[bytes]:
        """Return what other libraries open: a path, or a file of its own with a position."""

    def close(self) -> None:
        """Stop reading; no read may be in progress."""


class LocalFile:
    """A file on a disk. `os.pread` has no position that threads could move under each other."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._file = os.open(location, os.O_RDONLY)
        # A slide may be dropped without having been closed.
        self._close_file = weakref.finalize(self, os.close, self._file)
        self._close_file.atexit = False
        self.size = os.fstat(self._file).st_size

    def request(self, ranges: Sequence[Range]) -> Ranges:
        """Return ranges that are read when they are got."""
        return _LocalRanges(self._file, ranges)

    def open(self) -> str:
        """Return the path."""
        return self.location

    def close(self) -> None:
        """Close the file."""
        self._close_file()


class _LocalRanges:
    def __init__(self, file: int, ranges: Sequence[Range]) -> None:
        self._file = file
        self._ranges = ranges

    def get(self, number: int) -> bytes:
        offset, length = self._ranges[number]
        return os.pread(self._file, length, offset)

    def cancel(self) -> None:
        """Nothing is under way."""

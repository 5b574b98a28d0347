"""The bytes of one file, on a disk or in an object store.

A disk is read tile by tile, by whichever thread wants the tile. An object store takes tens of
milliseconds to answer, however little it is asked for, so all ranges of a window are requested at
once, and those that lie close together in one request.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import IO, Protocol

from typing_extensions import override

from wsi_unet.locations import Location
from wsi_unet.regular_files import open_regular_descriptor

Range = tuple[int, int]
"""(offset, length), bytes."""


class Ranges(Protocol):
    """Ranges of a file that were requested. Several threads may use them at once."""

    def get(self, number: int) -> bytes:
        """Return the bytes of range `number`, fewer where the file ends.

        Raises:
            OSError: they can't be read.
        """

    def cancel(self) -> None:
        """Send no more requests, and drop the answers of those under way."""


class ByteSource(Protocol):
    """A file that is open for reading, by several threads at once.

    Attributes:
        location: where the file is.
        size: its length, bytes.
    """

    location: Location
    size: int

    def request(self, ranges: Sequence[Range]) -> Ranges:
        """Request ranges of the file."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return metadata, fewer bytes where the file ends; a remote file keeps what it read.

        Raises:
            OSError: it can't be read.
        """

    def open(self) -> str | IO[bytes]:
        """Return what other libraries can open: a path, or a file with a position of its own."""

    def close(self) -> None:
        """Close the file; no read may be in progress."""


class LocalFile(ByteSource):
    """A file on a disk, read by `os.pread`, which has no position for threads to share."""

    def __init__(self, location: Location) -> None:
        """Open a file.

        Raises:
            OSError: it can't be opened, or isn't a regular file.
        """
        self.location = location
        self._file = open_regular_descriptor(location.path)
        # A slide may be dropped without having been closed.
        self._close_file = weakref.finalize(self, os.close, self._file)
        self._close_file.atexit = False
        self.size = os.fstat(self._file).st_size

    @override
    def request(self, ranges: Sequence[Range]) -> Ranges:
        """Return ranges that are read when they are asked for."""
        return _LocalRanges(self._file, ranges)

    @override
    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._file, length, offset)

    @override
    def open(self) -> str:
        return str(self.location)

    @override
    def close(self) -> None:
        self._close_file()


class _LocalRanges(Ranges):
    def __init__(self, file: int, ranges: Sequence[Range]) -> None:
        self._file = file
        self._ranges = ranges

    @override
    def get(self, number: int) -> bytes:
        offset, length = self._ranges[number]
        return os.pread(self._file, length, offset)

    @override
    def cancel(self) -> None:
        pass  # nothing is under way

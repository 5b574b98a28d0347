"""One object in an object store, read as slides are read: by ranges, many at once."""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, cast

from wsi_unet import locations
from wsi_unet.slides.sources.source import Range, Ranges
from wsi_unet.storage.s3.client import Bucket, StoredBytes

REQUESTS = 16
"""How many requests one slide may have under way."""
GAP = 128 << 10
"""Bytes between two ranges from which they are asked for separately; fewer are read and dropped."""
LARGEST = 1 << 20
"""Bytes that one request asks for, unless a single range is larger."""
END = 1 << 20
"""Bytes at either end of an object that are read when it is opened, and kept."""
BEFORE, BEHIND = 128 << 10, 896 << 10
"""Bytes before and behind a place in the middle that are read along with it, for metadata."""
MOST_KEPT = 16
"""Pieces from the middle that are kept; what is read again is metadata, all of it early on."""

Piece = tuple[int, bytes]
"""(offset, data) of some bytes of an object."""


class RemoteSource:
    """An object that is open for reading; another object of the same name is noticed."""

    def __init__(self, location: str) -> None:
        """Open an object: its first and last MiB are read, both at once.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: it can't be read.
        """
        self.location = location
        self._bucket = Bucket(locations.parent(location))
        self._key = locations.name(location)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="ranges")
        try:
            ends = [
                self._pool.submit(self._bucket.start, self._key, END),
                self._pool.submit(self._bucket.tail, self._key, END),
            ]
            head, tail = (_there(end.result()) for end in ends)
        except BaseException:
            self.close()
            raise
        self.size, self._tag = head.size, head.tag
        self._ends = [(0, head.data), (self.size - len(tail.data), tail.data)]
        self._kept: list[Piece] = []

    def request(self, ranges: Sequence[Range]) -> Ranges:
        """Ask for ranges; those that lie close together in one request, up to `REQUESTS` at once.

        What the ends hold isn't asked for again.
        """
        return _RemoteRanges(self, ranges)

    def known(self, offset: int, length: int) -> bytes | None:
        """Return bytes that were read when the object was opened, None for others."""
        return _within(self._ends, offset, offset + length)

    def submit(self, start: int, stop: int) -> Future[bytes]:
        """Begin to read bytes [start, stop)."""
        return self._pool.submit(self._fetch, start, stop)

    def _fetch(self, start: int, stop: int) -> bytes:
        if start >= self.size:
            return b""
        stop = min(stop, self.size)
        return _there(self._bucket.read(self._key, start, stop, self._tag)).data

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes of the object, fewer at its end; reads ahead and remembers.

        Raises:
            OSError: they can't be read.
        """
        stop = min(offset + length, self.size)
        if offset >= stop:
            return b""
        with self._lock:
            found = _within(self._ends + self._kept, offset, stop)
            if found is not None:
                return found
            first = max(0, offset - BEFORE)
            piece = first, self._fetch(first, max(stop, offset + BEHIND))
            self._kept = [*self._kept, piece][-MOST_KEPT:]
            return _within([piece], offset, stop) or b""

    def open(self) -> IO[bytes]:
        """Return a file with a position of its own, for whoever reads metadata."""
        return cast("IO[bytes]", _ObjectFile(self))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _there(part: StoredBytes | None) -> StoredBytes:
    if part is None:
        raise FileNotFoundError(errno.ENOENT, "no such object; check the URL")
    return part


def _within(pieces: Sequence[Piece], start: int, stop: int) -> bytes | None:
    """Return bytes [start, stop) from the piece that holds them all, None if there is none."""
    for first, data in pieces:
        if first <= start and stop <= first + len(data):
            return data[start - first : stop - first]
    return None


class _RemoteRanges:
    """Ranges that are under way, several of them in one request."""

    def __init__(self, source: RemoteSource, ranges: Sequence[Range]) -> None:
        self._ranges = ranges
        self._known: dict[int, bytes] = {}
        for number, (offset, length) in enumerate(ranges):
            data = source.known(offset, length)
            if data is not None:
                self._known[number] = data
        wanted = [number for number in range(len(ranges)) if number not in self._known]
        self._requests: dict[int, tuple[int, Future[bytes]]] = {}
        for members in merge(ranges, wanted):
            start = ranges[members[0]][0]
            request = source.submit(start, max(sum(ranges[number]) for number in members))
            self._requests |= dict.fromkeys(members, (start, request))

    def get(self, number: int) -> bytes:
        if number in self._known:
            return self._known[number]
        (offset, length), (start, request) = self._ranges[number], self._requests[number]
        return request.result()[offset - start : offset - start + length]

    def cancel(self) -> None:
        for _, request in self._requests.values():
            request.cancel()


def merge(ranges: Sequence[Range], wanted: Sequence[int]) -> list[list[int]]:
    """Return which ranges to ask for together, each time those that begin first, first.

    >>> merge([(0, 10), (1_000_000, 10), (12, 5), (20, 5)], [0, 1, 2])
    [[0, 2], [1]]

    Args:
        ranges: all of them.
        wanted: the numbers of those that are asked for.
    """
    merged: list[list[int]] = []
    start = stop = 0
    for number in sorted(wanted, key=lambda number: ranges[number]):
        offset, length = ranges[number]
        end = max(stop, offset + length)
        if merged and offset - stop <= GAP and end - start <= LARGEST:
            merged[-1].append(number)
            stop = end
        else:
            merged.append([number])
            start, stop = offset, offset + length
    return merged


class _ObjectFile(io.RawIOBase):
    """An object as a file that can be sought and read."""

    def __init__(self, source: RemoteSource) -> None:
        super().__init__()
        self._source = source
        self._position = 0
        self.name = locations.name(source.location)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}
        if base[whence] + offset < 0:
            raise OSError(errno.EINVAL, "a place before the beginning of the file")
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read_at(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

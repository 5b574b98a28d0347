"""One object in an object store, read as slides are read: by ranges, many at once."""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, cast

from wsi_unet import locations
from wsi_unet.remote.s3 import Bucket, Part
from wsi_unet.slides.source import Range, Ranges

REQUESTS = 16
"""How many requests one slide may have under way."""
GAP = 128 << 10
"""Bytes between two ranges from which they are asked for separately; fewer are read and dropped."""
LARGEST = 4 << 20
"""Bytes that one request asks for, unless a single range is larger."""
END = 1 << 20
"""Bytes at either end of an object that are read when it is opened, and kept."""
BEFORE, BEHIND = 128 << 10, 896 << 10
"""Bytes before and behind a place in the middle that are read along with it, for metadata."""
MOST_KEPT = 16
"""Pieces from the middle that are kept; what is read again is metadata, all of it early on."""


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
        self._kept: dict[int, bytes] = {}

    def request(self, ranges: Sequence[Range]) -> Ranges:
        """Ask for ranges; those that lie close together in one request, up to `REQUESTS` at once.

        What the ends hold isn't asked for again.
        """
        return _RemoteRanges(self, ranges)

    def submit(self, start: int, stop: int) -> Future[bytes]:
        """Begin to read bytes [start, stop)."""
        for first, data in self._ends:
            if first <= start and stop <= first + len(data):
                known: Future[bytes] = Future()
                known.set_result(data[start - first : stop - first])
                return known
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
            for first, data in (*self._ends, *self._kept.items()):
                if first <= offset and stop <= first + len(data):
                    return data[offset - first : stop - first]
            first = max(0, offset - BEFORE)
            data = self._fetch(first, max(stop, offset + BEHIND))
            while len(self._kept) >= MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[first] = data
            return data[offset - first : stop - first]

    def open(self) -> IO[bytes]:
        """Return a file with a position of its own, for whoever reads metadata."""
        return cast("IO[bytes]", _ObjectFile(self))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _there(part: Part | None) -> Part:
    if part is None:
        raise FileNotFoundError(errno.ENOENT, "no such object; check the URL")
    return part


class _RemoteRanges:
    """Ranges that are under way, several of them in one request."""

    def __init__(self, source: RemoteSource, ranges: Sequence[Range]) -> None:
        self._place: dict[int, tuple[int, int]] = {}
        self._requests: list[tuple[int, Future[bytes]]] = []
        for start, stop, members in merge(ranges):
            for number in members:
                self._place[number] = (len(self._requests), ranges[number][0] - start)
            self._requests.append((start, source.submit(start, stop)))
        self._lengths = [length for _, length in ranges]

    def get(self, number: int) -> bytes:
        request, skipped = self._place[number]
        data = self._requests[request][1].result()
        return data[skipped : skipped + self._lengths[number]]

    def cancel(self) -> None:
        for _, request in self._requests:
            request.cancel()


def merge(ranges: Sequence[Range]) -> list[tuple[int, int, list[int]]]:
    """Return the requests for some ranges: (start, stop) in bytes, and the ranges in each.

    >>> merge([(0, 10), (1_000_000, 10), (12, 5)])
    [(0, 17, [0, 2]), (1000000, 1000010, [1])]
    """
    merged: list[tuple[int, int, list[int]]] = []
    for number in sorted(range(len(ranges)), key=lambda number: ranges[number]):
        offset, length = ranges[number]
        if merged:
            start, stop, members = merged[-1]
            end = max(stop, offset + length)
            if offset - stop <= GAP and end - start <= LARGEST:
                merged[-1] = start, end, [*members, number]
                continue
        merged.append((offset, offset + length, [number]))
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

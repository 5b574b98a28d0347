"""One file in an object store, read by ranges, many at once, as slides are read."""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, cast

from typing_extensions import override

from wsi_unet.locations import Location
from wsi_unet.slides.sources.source import ByteSource, Range, Ranges
from wsi_unet.storage.s3.client import StoredBytes, open_bucket

MAX_REQUESTS = 16
"""How many requests one slide may have under way."""
MAX_GAP = 128 << 10
"""Bytes between two ranges of one request, at most; they are read and dropped."""
MAX_REQUEST = 1 << 20
"""Bytes that one request asks for at most, unless a single range is larger."""
END_BYTES = 1 << 20
"""Bytes at either end of a file that are read when it is opened, and kept."""
READ_BEFORE, READ_AFTER = 128 << 10, 896 << 10
"""Bytes before and after a position that are read along with it when metadata is read."""
MAX_KEPT_PIECES = 16
"""Pieces from the middle that are kept; only metadata is read again, soon after opening."""

Piece = tuple[int, bytes]
"""(offset, data) of some bytes of a file."""


class RemoteSource(ByteSource):
    """A remote file that is open for reading; if it is replaced meanwhile, reading it fails."""

    def __init__(self, location: Location) -> None:
        """Open a file by reading its first and last MiB, both at once.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it can't be read.
        """
        self.location = location
        self._bucket = open_bucket(location.parent)
        self._key = location.name
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(MAX_REQUESTS, thread_name_prefix="ranges")
        try:
            ends = [
                self._pool.submit(self._bucket.get_first, self._key, END_BYTES),
                self._pool.submit(self._bucket.get_last, self._key, END_BYTES),
            ]
            head, tail = (_require(end.result()) for end in ends)
        except BaseException:
            self.close()
            raise
        self.size, self._tag = head.size, head.tag
        self._ends = [(0, head.data), (self.size - len(tail.data), tail.data)]
        self._kept: list[Piece] = []

    @override
    def request(self, ranges: Sequence[Range]) -> Ranges:
        """Request ranges; those that lie close together share a request.

        Up to `MAX_REQUESTS` are under way at once. What lies in the ends isn't requested again.
        """
        return _RemoteRanges(self, ranges)

    def known(self, offset: int, length: int) -> bytes | None:
        """Return bytes that were read when the file was opened, None for any others."""
        return _cut(self._ends, offset, offset + length)

    def submit(self, start: int, stop: int) -> Future[bytes]:
        """Start to read bytes [start, stop)."""
        return self._pool.submit(self._fetch, start, stop)

    def _fetch(self, start: int, stop: int) -> bytes:
        if start >= self.size:
            return b""
        stop = min(stop, self.size)
        return _require(self._bucket.get_range(self._key, start, stop, self._tag)).data

    @override
    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, fewer at its end; read ahead and keep what was read."""
        stop = min(offset + length, self.size)
        if offset >= stop:
            return b""
        with self._lock:
            kept = _cut(self._ends + self._kept, offset, stop)
            if kept is not None:
                return kept
            first = max(0, offset - READ_BEFORE)
            piece = first, self._fetch(first, max(stop, offset + READ_AFTER))
            self._kept = [*self._kept, piece][-MAX_KEPT_PIECES:]
            return _cut([piece], offset, stop) or b""

    @override
    def open(self) -> IO[bytes]:
        return cast("IO[bytes]", _RemoteFile(self))

    @override
    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _require(stored: StoredBytes | None) -> StoredBytes:
    if stored is None:
        raise FileNotFoundError(errno.ENOENT, "no such file; check the URL")
    return stored


def _cut(pieces: Sequence[Piece], start: int, stop: int) -> bytes | None:
    """Return bytes [start, stop) out of the piece that holds them all, None if none does."""
    for first, data in pieces:
        if first <= start and stop <= first + len(data):
            return data[start - first : stop - first]
    return None


class _RemoteRanges(Ranges):
    """Ranges that were requested, several of them in one request."""

    def __init__(self, source: RemoteSource, ranges: Sequence[Range]) -> None:
        self._ranges = ranges
        self._known: dict[int, bytes] = {}
        for number, (offset, length) in enumerate(ranges):
            data = source.known(offset, length)
            if data is not None:
                self._known[number] = data
        missing = [number for number in range(len(ranges)) if number not in self._known]
        self._requests: dict[int, tuple[int, Future[bytes]]] = {}
        for members in merge_ranges(ranges, missing):
            start = ranges[members[0]][0]
            request = source.submit(start, max(sum(ranges[number]) for number in members))
            self._requests |= dict.fromkeys(members, (start, request))

    @override
    def get(self, number: int) -> bytes:
        if number in self._known:
            return self._known[number]
        (offset, length), (start, request) = self._ranges[number], self._requests[number]
        return request.result()[offset - start : offset - start + length]

    @override
    def cancel(self) -> None:
        for _, request in self._requests.values():
            request.cancel()


def merge_ranges(ranges: Sequence[Range], wanted: Sequence[int]) -> list[list[int]]:
    """Return the numbers of the ranges that share a request, for each request.

    Requests, and the ranges in them, are in the order in which the ranges begin.

    >>> merge_ranges([(0, 10), (1_000_000, 10), (12, 5), (20, 5)], [0, 1, 2])
    [[0, 2], [1]]

    Args:
        ranges: all ranges.
        wanted: the numbers of those to request.
    """
    merged: list[list[int]] = []
    start = stop = 0
    for number in sorted(wanted, key=lambda number: ranges[number]):
        offset, length = ranges[number]
        end = max(stop, offset + length)
        if merged and offset - stop <= MAX_GAP and end - start <= MAX_REQUEST:
            merged[-1].append(number)
            stop = end
        else:
            merged.append([number])
            start, stop = offset, offset + length
    return merged


class _RemoteFile(io.RawIOBase):
    """A remote file as Python's own files are: with a position, for reading metadata."""

    def __init__(self, source: RemoteSource) -> None:
        super().__init__()
        self._source = source
        self._position = 0
        self.name = source.location.name

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._position

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}
        if base[whence] + offset < 0:
            raise OSError(errno.EINVAL, "a position before the start of the file")
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read_at(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

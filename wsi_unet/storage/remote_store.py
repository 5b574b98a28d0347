"""Objects in an object store.

Putting an object is atomic there, and conditional: only if there is none, only if it still is the
one that was read. Deleting is not conditional everywhere, so what `swap` deletes is emptied
instead, and an empty object counts as none.

A store may have put an object and fail to say so; asked again, it refuses. So `create` and `swap`
may return False although they put it: whoever cares looks.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wsi_unet.errors import OutputError
from wsi_unet.storage.s3.client import Bucket, StoredBytes


@dataclass(frozen=True)
class RemoteStore:
    """Objects below a URL.

    Attributes:
        url: as `locations.resolve` returns it.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def _bucket(self) -> Bucket:
        return Bucket(self.url)

    def get(self, key: str) -> bytes | None:
        """Return the bytes of `key`, None if there is no such object.

        Raises:
            OutputError: if it can't be read.
        """
        found = self._read(key)
        return found.data if found is not None and found.data else None

    def put(self, key: str, data: bytes) -> None:
        """Replace `key` by `data` in one atomic step.

        Raises:
            OutputError: if it can't be written; the old object stays.
        """
        with self._refusals("write", key):
            self._bucket.put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Put `key` unless there is one, in one atomic step; return whether it was put.

        Raises:
            OutputError: if it can't be written.
        """
        with self._refusals("write", key):
            if self._bucket.create(key, data):
                return True
        found = self._read(key)
        return found is not None and not found.data and self._replace(key, data, found)

    def swap(self, key: str, expected: bytes, data: bytes | None) -> bool:
        """Replace `key` by `data` (None: empty it) if it is `expected`, in one atomic step.

        Raises:
            OutputError: if it can't be read or written.
        """
        found = self._read(key)
        if found is None or found.data != expected:
            return False
        return self._replace(key, data or b"", found)

    def size(self, key: str) -> int | None:
        """Return the number of bytes of `key`, None if there is no such object.

        Raises:
            OutputError: if it can't be looked at.
        """
        with self._refusals("look at", key):
            return self._bucket.size(key) or None

    def delete(self, key: str) -> None:
        """Remove `key`; it is no error if it isn't there.

        Raises:
            OutputError: if it can't be removed.
        """
        with self._refusals("delete", key):
            self._bucket.delete(key)

    def delete_all(self, prefix: str) -> None:
        """Remove `prefix` and every key below it, one batch after the other.

        Raises:
            OutputError: if something can't be removed.
        """
        with self._refusals("delete", prefix):
            self._bucket.delete_all(prefix)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key below `prefix` ("" for all), sorted.

        Raises:
            OutputError: if the bucket can't be listed.
        """
        return (key for key, _ in self.list_sizes(prefix))

    def list_sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield every key below `prefix` with its size in bytes: a thousand per request.

        Raises:
            OutputError: if the bucket can't be listed.
        """
        with self._refusals("list", prefix):
            for key, size in self._bucket.list(prefix):
                if size:
                    yield key, size

    def remove_leftovers(self) -> None:
        """Do nothing: a put that was cut short leaves nothing behind."""

    def free_bytes(self) -> None:
        """Return None: nobody runs out of room in a bucket."""

    def _read(self, key: str) -> StoredBytes | None:
        with self._refusals("read", key):
            return self._bucket.get(key)

    def _replace(self, key: str, data: bytes, found: StoredBytes) -> bool:
        """Replace what was found, unless it has changed since; return whether it was replaced."""
        if found.tag is None:
            raise OutputError(
                f"{self.url}: {key!r} has no ETag, so it can't be replaced safely; use an object "
                "store with conditional writes"
            )
        with self._refusals("write", key):
            return self._bucket.replace(key, data, found.tag)

    @contextmanager
    def _refusals(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"{self.url}: can't {verb} {key!r}" if key else f"{self.url}: can't {verb} it"
            if error.errno == errno.ENOPKG:
                what = self.url
            raise OutputError(f"{what}: {error.strerror or error}") from error

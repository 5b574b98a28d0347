"""A store in a bucket.

Writing a key is atomic there, and conditional: only if there is none, only if it still is the one
that was read. Deleting isn't conditional everywhere, so `swap` empties a key instead of deleting
it, and a key without bytes counts as absent.

A bucket may have written a key and fail to say so; asked again, it refuses. So `create` and `swap`
may return False although they wrote; a caller who must know reads the key.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from typing_extensions import override

from wsi_unet.errors import OutputError
from wsi_unet.locations import Location
from wsi_unet.storage.keys import check_key, check_prefix
from wsi_unet.storage.s3.client import Bucket, StoredBytes
from wsi_unet.storage.store import MOST_BYTES, ByteStore, TooLargeError, too_large


@dataclass(frozen=True)
class RemoteStore(ByteStore):
    """A store below a URL.

    Attributes:
        url: the URL.
    """

    url: Location

    @override
    def __str__(self) -> str:
        return str(self.url)

    @property
    @override
    def location(self) -> Location:
        return self.url

    @property
    def _bucket(self) -> Bucket:
        return Bucket(self.url)

    @override
    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        stored = self._read(key, most)
        return stored.data if stored is not None and stored.data else None

    @override
    def put(self, key: str, data: bytes) -> None:
        with self._output_errors("write", key):
            self._bucket.put(check_key(key), data)

    @override
    def create(self, key: str, data: bytes) -> bool:
        with self._output_errors("write", key):
            if self._bucket.create(check_key(key), data):
                return True
        stored = self._read(key)
        return stored is not None and not stored.data and self._replace(key, data, stored)

    @override
    def swap(self, key: str, expected: bytes, data: bytes | None) -> bool:
        try:
            stored = self._read(key, len(expected))
        except TooLargeError:
            return False
        if stored is None or stored.data != expected:
            return False
        return self._replace(key, data or b"", stored)

    @override
    def size(self, key: str) -> int | None:
        with self._output_errors("look at", key):
            return self._bucket.size(check_key(key)) or None

    @override
    def delete(self, key: str) -> None:
        with self._output_errors("delete", key):
            self._bucket.delete(check_key(key))

    @override
    def delete_all(self, prefix: str) -> None:
        with self._output_errors("delete", prefix):
            self._bucket.delete_all(check_key(prefix))

    @override
    def list(self, prefix: str) -> Iterator[str]:
        return (key for key, _ in self.list_sizes(prefix))

    @override
    def list_sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        with self._output_errors("list", prefix):
            for key, size in self._bucket.list(check_prefix(prefix)):
                if size:
                    yield key, size

    @override
    def remove_leftovers(self) -> None:
        """Do nothing: a write that was cut short leaves nothing behind."""

    @override
    def free_bytes(self) -> None:
        """Return None: a bucket has no limit."""

    def _read(self, key: str, most: int = MOST_BYTES) -> StoredBytes | None:
        with self._output_errors("read", key):
            stored = self._bucket.get(check_key(key), most)
        if stored is not None and stored.size > most:
            raise too_large(self, key, stored.size, most)
        return stored

    def _replace(self, key: str, data: bytes, stored: StoredBytes) -> bool:
        """Replace what was read, unless it has changed since; return whether it was replaced."""
        if stored.tag is None:
            raise OutputError(
                f"{self.url}: {key!r} has no ETag, so it can't be replaced safely; use a server "
                "with conditional writes"
            )
        with self._output_errors("write", key):
            return self._bucket.replace(check_key(key), data, stored.tag)

    @contextmanager
    def _output_errors(self, verb: str, key: str) -> Iterator[None]:
        """Raise what goes wrong inside as an OutputError that says what couldn't be done."""
        try:
            yield
        except OSError as error:
            what = f"{self.url}: can't {verb} {key!r}" if key else f"{self.url}: can't {verb} it"
            if error.errno == errno.ENOPKG:
                what = str(self.url)
            raise OutputError(f"{what}: {error.strerror or error}") from error

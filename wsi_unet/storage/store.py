"""What a store is: keys to bytes, each replaced as a whole.

A Zarr store is nothing more than this, so the writer needs no Zarr library: whatever is put (a
shard, a metadata document, a marker) is complete in memory before, and a reader sees the old bytes
or the new ones, never a mixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from wsi_unet.errors import OutputError
from wsi_unet.locations import Location

MOST_BYTES = 1 << 32
"""The most bytes of anything that is read: more than a shard of the largest blocks has."""


class TooLargeError(OutputError):
    """A key has more bytes than its reader expects."""


class ByteStore(Protocol):
    """Bytes by key ("labels/nuclei/0/c/3/4"), below one location. Picklable, holds nothing open.

    `str` of it is the location. What is stored has at least one byte: a key without bytes may count
    as absent. Whatever can't be done is an `OutputError`; what was there before stays. So is a key
    that `check_key` refuses, whether a caller made it up or read it somewhere, and anything that
    would lead out of the store, like a link.
    """

    @property
    def location(self) -> Location:
        """The folder or URL that the keys lie below."""
        ...

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        """Return the bytes of `key`, None if it isn't there.

        Args:
            key: the key.
            most: the most bytes that it may have.

        Raises:
            TooLargeError: it has more, so it isn't what is expected there; nothing is read.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Replace `key` by `data` in one atomic step."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Put `key` only if it isn't there, in one atomic step; return whether it was put."""
        ...

    def swap(self, key: str, expected: bytes, data: bytes | None) -> bool:
        """Replace `key` by `data` (None: delete it) only if it still is `expected`.

        One atomic step against every other `create` and `swap`; not against `put` and `delete`.
        Returns whether it was `expected`.
        """
        ...

    def size(self, key: str) -> int | None:
        """Return the number of bytes of `key`, None if it isn't there."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; it is no error if it isn't there."""
        ...

    def delete_all(self, prefix: str) -> None:
        """Remove `prefix` and every key below it ("labels/nuclei")."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key below `prefix` ("" for all), in a fixed order; no temporary files."""
        ...

    def list_sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield every key below `prefix` and its number of bytes, in the order of `list`."""
        ...

    def remove_leftovers(self) -> None:
        """Remove what killed writers left; to be called when a run starts."""
        ...

    def free_bytes(self) -> int | None:
        """Return how many bytes there is room for, None where there is no limit."""
        ...


def too_large(store: ByteStore, key: str, size: int, most: int) -> TooLargeError:
    """Return the error for a key that has more bytes than may be read."""
    return TooLargeError(
        f"{store}: {key!r} has {size} bytes, but at most {most} belong there; it isn't what "
        "wsi-unet wrote"
    )


def get_bounded(store: ByteStore, key: str, most: int) -> bytes | None:
    """Return the bytes of a key; None if it isn't there, or has more than `most` bytes.

    Raises:
        OutputError: it can't be read.
    """
    try:
        return store.get(key, most)
    except TooLargeError:
        return None

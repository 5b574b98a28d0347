"""Where the output's objects live: keys to bytes, replaced whole and at once.

A Zarr store is nothing more than this, so the writer needs no Zarr library: every object (a
shard, a metadata document, a marker) is complete in memory before it is put, and a reader sees
the old bytes or the new ones, never a mixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from wsi_unet import locations
from wsi_unet.errors import OutputError
from wsi_unet.storage.keys import BOOKKEEPING, LOCK_KEY, LOCK_NAME
from wsi_unet.storage.local_store import STALE_SECONDS, TEMPORARY_FOLDER, LocalStore

__all__ = [
    "BOOKKEEPING",
    "LOCK_KEY",
    "LOCK_NAME",
    "STALE_SECONDS",
    "TEMPORARY_FOLDER",
    "ByteStore",
    "LocalStore",
    "open_store",
]


class ByteStore(Protocol):
    """Objects by key ("labels/nuclei/0/c/3/4"), under one root. Picklable, holds nothing open.

    `str` of it is the root's location. Objects have at least one byte: an empty one may count as
    absent. Whatever can't be done is an `OutputError`.
    """

    def get(self, key: str) -> bytes | None:
        """Return the bytes of `key`, None if there is no such object."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Replace `key` by `data` in one atomic step."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Put `key` only if it isn't there, in one atomic step; return whether it wasn't."""
        ...

    def swap(self, key: str, expected: bytes, data: bytes | None) -> bool:
        """Replace `key` by `data` (None: delete it) only if it still is `expected`.

        One atomic step against every other `create` and `swap`; not against `put` and `delete`.
        Returns whether it was `expected`.
        """
        ...

    def size(self, key: str) -> int | None:
        """Return the number of bytes of `key`, None if there is no such object."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; it is no error if it isn't there."""
        ...

    def delete_all(self, prefix: str) -> None:
        """Remove `prefix` and every key below it ("labels/nuclei")."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key below `prefix` ("" for all), without temporaries, in a fixed order."""
        ...

    def list_sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield what `list` does, each with its number of bytes."""
        ...

    def remove_leftovers(self) -> None:
        """Remove what killed writers left; to be called when a run starts."""
        ...

    def free_bytes(self) -> int | None:
        """Return the number of bytes that there is room for, None where there is no limit."""
        ...


def open_store(location: str | Path) -> ByteStore:
    """Return the objects below a folder or a URL, which need not exist yet. Touches nothing.

    Raises:
        OutputError: if `location` is something that is no folder, or can't be looked at.
        OptionError: if it is a URL that can't be written to.
    """
    if locations.is_url(location):
        from wsi_unet.storage.remote_store import RemoteStore

        return RemoteStore(locations.resolve(location))
    try:
        root = Path(location).expanduser().absolute()
        occupied = root.exists() and not root.is_dir()
    except OSError as error:  # a folder on the way may not be entered, a name is too long
        reason = error.strerror or error
        raise OutputError(
            f"{location}: can't be looked at: {reason}; choose another folder"
        ) from error
    except RuntimeError as error:  # "~somebody" who isn't there
        raise OutputError(f"{location}: {error}; give the folder's full path") from error
    if occupied:
        raise OutputError(
            f"{location}: is a file; choose a folder that is new or holds earlier output"
        )
    return LocalStore(root)

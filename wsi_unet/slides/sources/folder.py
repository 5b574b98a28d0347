"""A folder of small files, on a disk or in an object store: what a Zarr is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wsi_unet import locations

if TYPE_CHECKING:
    from zarr.abc.store import Store


class Folder(Protocol):
    """Files by name, "0/zarr.json". What can't be read is an OSError."""

    @property
    def location(self) -> str:
        """Where the folder is."""

    def below(self, name: str) -> Folder:
        """Return a folder in this one."""

    def read(self, name: str, length: int | None = None) -> bytes | None:
        """Return a file, or its first `length` bytes; None if there is none."""

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield name and size in bytes of every file below the folder, in no order."""

    def store(self) -> Store:
        """Return what zarr reads."""


def open_folder(location: str) -> Folder:
    """Return the folder at a location; touches nothing."""
    if not locations.is_url(location):
        return LocalFolder(location)
    from wsi_unet.slides.sources.remote_folder import RemoteFolder

    return RemoteFolder(location)


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a disk."""

    location: str

    def below(self, name: str) -> LocalFolder:
        """Return a folder in this one."""
        return LocalFolder(locations.join(self.location, name))

    def read(self, name: str, length: int | None = None) -> bytes | None:
        """Return a file, or its first `length` bytes; None if there is none."""
        try:
            with Path(self.location, name).open("rb") as file:
                return file.read(-1 if length is None else length)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield name and size in bytes of every file below the folder."""
        for place, _, names in os.walk(self.location, onerror=_raise):
            for name in names:
                file = Path(place, name)
                yield file.relative_to(self.location).as_posix(), file.stat().st_size

    def store(self) -> Store:
        """Return what zarr reads."""
        from wsi_unet.storage.s3.zarr_store import open_zarr_store

        return open_zarr_store(self.location)


def _raise(error: OSError) -> None:
    raise error

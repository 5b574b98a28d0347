"""Folders of small files, which is what a Zarr is."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from wsi_unet.errors import SlideError
from wsi_unet.locations import Location
from wsi_unet.regular_files import open_regular

if TYPE_CHECKING:
    from wsi_unet.storage.s3.zarr_store import ReadStore


class Folder(Protocol):
    """A folder whose files are read by name ("0/zarr.json"); what can't be read is an OSError.

    Attributes:
        location: where the folder is.
    """

    location: Location

    def subfolder(self, name: str) -> Folder:
        """Return a folder inside this one ("0", "labels/0").

        Raises:
            SlideError: the name, which the slide states, leads out of it.
        """

    def read(self, name: str, length: int | None = None) -> bytes | None:
        """Return a file, or its first `length` bytes; None if there is no such file."""

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield name and size in bytes of every file below the folder, in no order."""

    def store(self) -> ReadStore:
        """Return the store through which zarr reads the folder."""


def locate_below(folder: Location, name: str) -> Location:
    """Return the location of a folder inside another one.

    Raises:
        SlideError: the name leads out of it, or can't be a name.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not name.isprintable():
        raise SlideError(f"{folder}: names {name[:80]!r}, which isn't a folder inside it")
    return folder / "/".join(parts) if parts else folder


class LocalFolder(Folder):
    """A folder on a disk."""

    def __init__(self, location: Location) -> None:
        self.location = location

    @override
    def subfolder(self, name: str) -> LocalFolder:
        return LocalFolder(locate_below(self.location, name))

    @override
    def read(self, name: str, length: int | None = None) -> bytes | None:
        try:
            with open_regular((self.location / name).path) as file:
                return file.read(-1 if length is None else length)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    @override
    def sizes(self) -> Iterator[tuple[str, int]]:
        root = self.location.path
        for folder, _, names in os.walk(root, onerror=_raise):
            for name in names:
                file = Path(folder, name)
                status = file.stat()
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "it isn't a file", str(file))
                yield file.relative_to(root).as_posix(), status.st_size

    @override
    def store(self) -> ReadStore:
        from wsi_unet.storage.s3.zarr_store import open_zarr_store

        return open_zarr_store(self.location)


def _raise(error: OSError) -> None:
    raise error

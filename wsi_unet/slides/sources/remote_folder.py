"""Objects below a URL, read as the files of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsi_unet import locations
from wsi_unet.storage.s3.client import Bucket

if TYPE_CHECKING:
    from zarr.abc.store import Store


@dataclass(frozen=True)
class RemoteFolder:
    """What lies below a URL."""

    location: str

    def below(self, name: str) -> RemoteFolder:
        """Return a folder in this one."""
        return RemoteFolder(locations.join(self.location, name))

    def read(self, name: str, length: int | None = None) -> bytes | None:
        """Return an object, or its first `length` bytes; None if there is none."""
        bucket = Bucket(self.location)
        found = bucket.get(name) if length is None else bucket.start(name, length)
        return None if found is None else found.data

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield name and size in bytes of every object below the URL."""
        return Bucket(self.location).list("")

    def store(self) -> Store:
        """Return what zarr reads."""
        from wsi_unet.storage.s3.zarr_store import open_zarr_store

        return open_zarr_store(self.location)

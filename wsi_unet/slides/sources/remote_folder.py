"""Folders in an object store: all that is stored below a URL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from typing_extensions import override

from wsi_unet.locations import Location
from wsi_unet.slides.sources.folder import Folder, locate_below
from wsi_unet.storage.s3.client import open_bucket

if TYPE_CHECKING:
    from wsi_unet.storage.s3.zarr_store import ReadStore


class RemoteFolder(Folder):
    """A folder in an object store."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._bucket = open_bucket(location)

    @override
    def subfolder(self, name: str) -> RemoteFolder:
        return RemoteFolder(locate_below(self.location, name))

    @override
    def read(self, name: str, length: int | None = None) -> bytes | None:
        stored = self._bucket.get(name) if length is None else self._bucket.get_first(name, length)
        return None if stored is None else stored.data

    @override
    def sizes(self) -> Iterator[tuple[str, int]]:
        return self._bucket.list("")

    @override
    def store(self) -> ReadStore:
        from wsi_unet.storage.s3.zarr_store import open_zarr_store

        return open_zarr_store(self.location)

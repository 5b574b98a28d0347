"""The stores that zarr reads from: a folder, or the keys below a URL."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from wsi_unet.locations import Location
from wsi_unet.regular_files import check_regular
from wsi_unet.storage.s3.client import Bucket

if TYPE_CHECKING:
    from obstore import GetOptions

_TOO_LARGE = "it has more bytes than belong there"


def open_zarr_store(location: str | os.PathLike[str] | Location) -> ReadStore:
    """Return the store of a folder or a URL, for zarr to read from."""
    parsed = Location.parse(location)
    return BucketReadStore(parsed) if parsed.is_url else FolderReadStore(parsed.path)


class ReadStore(Store):
    """A Zarr store for reading.

    Attributes:
        most_bytes: the most bytes that a file or key may have which is read as a whole; None for
            any number.
    """

    most_bytes: int | None = None


class FolderReadStore(LocalStore, ReadStore):
    """A Zarr store for reading the regular files below a folder: no pipes, no devices."""

    def __init__(self, root: Path) -> None:
        """Take the files below `root`; nothing is read yet."""
        super().__init__(root, read_only=True)

    @override
    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        try:
            await asyncio.to_thread(self._check, self.root / key, whole=byte_range is None)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return await super().get(key, prototype, byte_range)

    def _check(self, path: Path, *, whole: bool) -> None:
        """Check that a file may be read.

        Raises:
            OSError: it isn't a regular file, or is too large.
        """
        check_regular(path)
        if whole and self.most_bytes is not None and path.stat().st_size > self.most_bytes:
            raise OSError(errno.EFBIG, _TOO_LARGE, str(path))


class BucketReadStore(ReadStore):
    """A Zarr store for reading arrays whose names are known, in a bucket.

    zarr's own `ObjectStore` would pickle a connection with its credentials, where this pickles a
    URL; and errors here are OSErrors that say what to do.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, url: Location) -> None:
        """Take the keys below `url`; nothing is read yet."""
        super().__init__(read_only=True)
        self._bucket = Bucket(url)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketReadStore) and other._bucket == self._bucket

    @override
    def __hash__(self) -> int:
        return hash(self._bucket)

    @override
    def __str__(self) -> str:
        return str(self._bucket.url)

    @override
    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        most = self.most_bytes if byte_range is None else None
        stored = await self._bucket.get_async(key, _get_options(byte_range), most)
        if stored is None:
            return None
        if most is not None and stored.size > most:
            raise OSError(errno.EFBIG, _TOO_LARGE, str(self._bucket.url / key))
        return prototype.buffer.from_bytes(stored.data)

    @override
    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        requests = (self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        return list(await asyncio.gather(*requests))

    @override
    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._bucket.size, key) is not None

    @override
    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: `wsi_unet.labels` writes outputs."""
        raise NotImplementedError("this store is for reading")

    @override
    async def delete(self, key: str) -> None:
        """Refuse: this store is for reading."""
        raise NotImplementedError("this store is for reading")

    @override
    def list(self) -> AsyncIterator[str]:
        """Refuse: the names of the arrays are known."""
        raise NotImplementedError("this store isn't listed")

    @override
    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse: the names of the arrays are known."""
        raise NotImplementedError("this store isn't listed")

    @override
    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refuse: the names of the arrays are known."""
        raise NotImplementedError("this store isn't listed")


def _get_options(byte_range: ByteRequest | None) -> GetOptions:
    match byte_range:
        case None:
            return {}
        case RangeByteRequest(start, end):
            return {"range": (start, end)}
        case OffsetByteRequest(offset):
            return {"range": {"offset": offset}}
        case SuffixByteRequest(suffix):
            return {"range": {"suffix": suffix}}

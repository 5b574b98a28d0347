"""Objects below a URL as what zarr reads from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from wsi_unet import locations
from wsi_unet.storage.s3.client import Bucket

if TYPE_CHECKING:
    from obstore import GetOptions


def open_zarr_store(location: str) -> Store:
    """Return what zarr reads from: a folder or the objects below a URL."""
    if locations.is_url(location):
        return ReadStore(location)
    return LocalStore(location, read_only=True)


class ReadStore(Store):
    """A Zarr store for reading arrays whose names are known.

    zarr's own `ObjectStore` would do, but pickles a connection, credentials and all, where this
    pickles a URL; and what goes wrong here is an OSError that says what to do.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, url: str) -> None:
        """Take the objects below `url`; nothing is read yet."""
        super().__init__(read_only=True)
        self._bucket = Bucket(url)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReadStore) and other._bucket == self._bucket

    def __hash__(self) -> int:
        return hash(self._bucket)

    def __str__(self) -> str:
        return self._bucket.url

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or some of its bytes, None if there is no such object.

        Raises:
            OSError: it can't be read.
        """
        found = await self._bucket.get_async(key, _options(byte_range))
        return None if found is None else prototype.buffer.from_bytes(found.data)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return several objects or parts of objects, read at once."""
        wanted = (self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        return list(await asyncio.gather(*wanted))

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return await asyncio.to_thread(self._bucket.size, key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: outputs are written by `wsi_unet.labels`."""
        raise NotImplementedError("this store is for reading")

    async def delete(self, key: str) -> None:
        """Refuse, as `set` does."""
        raise NotImplementedError("this store is for reading")

    def list(self) -> AsyncIterator[str]:
        """Refuse: the names of the arrays are known."""
        raise NotImplementedError("this store isn't listed")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse, as `list` does."""
        raise NotImplementedError("this store isn't listed")

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refuse, as `list` does."""
        raise NotImplementedError("this store isn't listed")


def _options(byte_range: ByteRequest | None) -> GetOptions:
    match byte_range:
        case None:
            return {}
        case RangeByteRequest(start, end):
            return {"range": (start, end)}
        case OffsetByteRequest(offset):
            return {"range": {"offset": offset}}
        case SuffixByteRequest(suffix):
            return {"range": {"suffix": suffix}}

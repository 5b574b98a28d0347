"""Objects in S3 buckets, whose errors are those of a file system.

What a bucket refuses comes out as the `OSError` that a disk would raise for it (FileNotFoundError,
PermissionError, TimeoutError, …), its `strerror` one line that says what to do. So a caller that
copes with files copes with objects.

A request that fails for a passing reason is tried again, for a bounded time. Connections belong to
the process that made them: nothing here is pickled but URLs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from wsi_unet.storage.s3.credentials import Access, find_access
from wsi_unet.storage.s3.errors import failures, import_obstore, missing

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Store

CONNECT_TIMEOUT = timedelta(seconds=5)
TIMEOUT = timedelta(seconds=120)
"""For one request, from its first byte to its answer's last."""

RETRY_TIMEOUT = timedelta(seconds=20)
"""From the first try on; after it nothing is tried again."""

RETRIES = 1000
"""More than there is time for."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=200), timedelta(seconds=5)


@dataclass(frozen=True)
class StoredBytes:
    """Some bytes of an object.

    Attributes:
        data: the bytes.
        size: of the whole object, bytes.
        tag: changes with the object's content.
    """

    data: bytes
    size: int
    tag: str | None


@dataclass(frozen=True)
class Bucket:
    """The objects below a URL, by key. Picklable; holds nothing open.

    Attributes:
        url: "s3://bucket" or "s3://bucket/folder", as `locations.resolve` returns it.
    """

    url: str

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self.url.partition("://")[2].partition("/")[0]

    def path(self, key: str) -> str:
        """Return the key in the whole bucket."""
        folder = self.url.partition("://")[2].partition("/")[2]
        return "/".join(part for part in (folder, key) if part)

    def get(self, key: str) -> StoredBytes | None:
        """Return a whole object, None if there is no such object.

        Raises:
            OSError: it can't be read.
        """
        return self._get(key, {})

    def read(self, key: str, start: int, stop: int, tag: str | None) -> StoredBytes | None:
        """Return bytes [start, stop) of an object, None if there is no such object.

        Args:
            key: of the object.
            start: first byte; inside the object.
            stop: behind the last byte; fewer are returned where the object ends before.
            tag: of the object as it was; another one by now is an error.

        Raises:
            OSError: it can't be read, or has changed.
        """
        options: GetOptions = {"range": (start, stop)}
        return self._get(key, options if tag is None else {**options, "if_match": tag})

    def start(self, key: str, length: int) -> StoredBytes | None:
        """Return the first bytes of an object, `length` or all there are; None if it isn't there.

        Raises:
            OSError: it can't be read.
        """
        return self._end(key, {"range": (0, length)})

    def tail(self, key: str, length: int) -> StoredBytes | None:
        """Return the last bytes of an object, `length` or all there are; None if it isn't there.

        Raises:
            OSError: it can't be read.
        """
        return self._end(key, {"range": {"suffix": length}})

    async def get_async(self, key: str, options: GetOptions) -> StoredBytes | None:
        """Return an object or, as the options say, some of its bytes; None if it isn't there.

        Raises:
            OSError: it can't be read.
        """
        with failures(self.name):
            try:
                found = await import_obstore().get_async(
                    self.store(), self.path(key), options=options
                )
                meta = found.meta
                data = await found.bytes_async()
                return StoredBytes(data.to_bytes(), int(meta["size"]), meta["e_tag"])
            except FileNotFoundError as error:
                if missing(error):
                    return None
                raise

    def _end(self, key: str, options: GetOptions) -> StoredBytes | None:
        try:
            return self._get(key, options)
        except OSError as error:
            # No range of an empty object can be had; S3 calls that an error.
            if error.errno == errno.ERANGE and self.size(key) == 0:
                return self._get(key, {})
            raise

    def _get(self, key: str, options: GetOptions) -> StoredBytes | None:
        with failures(self.name):
            try:
                found = import_obstore().get(self.store(), self.path(key), options=options)
                meta = found.meta
                return StoredBytes(found.bytes().to_bytes(), int(meta["size"]), meta["e_tag"])
            except FileNotFoundError as error:
                if missing(error):
                    return None
                raise

    def size(self, key: str) -> int | None:
        """Return the number of bytes of an object, None if there is no such object.

        Raises:
            OSError: it can't be looked at.
        """
        with failures(self.name):
            try:
                return int(import_obstore().head(self.store(), self.path(key))["size"])
            except FileNotFoundError as error:
                if missing(error):
                    return None
                raise

    def put(self, key: str, data: bytes) -> None:
        """Replace an object in one atomic step.

        Raises:
            OSError: it can't be written.
        """
        with failures(self.name):
            # In one request however large: of an upload in parts, a killed writer leaves parts
            # that nobody sees and somebody pays for.
            import_obstore().put(self.store(), self.path(key), data, use_multipart=False)

    def create(self, key: str, data: bytes) -> bool:
        """Put an object unless there is one; return whether it was put.

        Raises:
            OSError: it can't be written.
        """
        obstore = import_obstore()
        with failures(self.name):
            try:
                obstore.put(self.store(), self.path(key), data, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
            return True

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Replace an object if it still has that tag; return whether it was replaced.

        Raises:
            OSError: it can't be written.
        """
        obstore = import_obstore()
        with failures(self.name):
            try:
                obstore.put(self.store(), self.path(key), data, mode={"e_tag": tag})
            except (obstore.exceptions.PreconditionError, obstore.exceptions.AlreadyExistsError):
                return False
            except FileNotFoundError as error:
                if missing(error):
                    return False
                raise
            return True

    def delete(self, key: str) -> None:
        """Remove an object; it is no error if it isn't there.

        Raises:
            OSError: it can't be removed.
        """
        with failures(self.name):
            try:
                import_obstore().delete(self.store(), self.path(key))
            except FileNotFoundError as error:
                if not missing(error):
                    raise

    def delete_all(self, prefix: str) -> None:
        """Remove an object and all below it.

        Raises:
            OSError: something can't be removed.
        """
        obstore = import_obstore()
        with failures(self.name):
            for batch in obstore.list(self.store(), self.path(prefix)):
                obstore.delete(self.store(), [one["path"] for one in batch])
        self.delete(prefix)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield key and size in bytes of every object below a prefix ("" for all), sorted.

        Raises:
            OSError: the bucket can't be listed.
        """
        skipped = len(self.path("")) + 1 if self.path("") else 0
        with failures(self.name):
            for batch in import_obstore().list(self.store(), self.path(prefix) or None):
                for one in batch:
                    yield one["path"][skipped:], int(one["size"])

    def store(self) -> S3Store:
        """Return this process's connection to the bucket.

        Raises:
            OSError: obstore isn't installed, or there are no credentials.
        """
        return _connect(self.name, find_access(), os.getpid())


@lru_cache(maxsize=64)
def _connect(bucket: str, access: Access, _process: int) -> S3Store:
    """Return a connection to a bucket; one per process, since it doesn't survive a fork."""
    import_obstore()
    from obstore.store import S3Store

    config, provider = access.connection()
    return S3Store(
        bucket,
        config=config,
        credential_provider=provider,
        client_options={
            "allow_http": str(config.get("endpoint", "")).startswith("http://"),
            "connect_timeout": CONNECT_TIMEOUT,
            "timeout": TIMEOUT,
        },
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": RETRY_TIMEOUT,
            "backoff": {"init_backoff": FIRST_PAUSE, "max_backoff": LONGEST_PAUSE, "base": 2},
        },
    )

"""Reading and writing keys in S3 buckets, with the errors of a file system.

What a bucket refuses is raised as the `OSError` that a disk would raise for it (FileNotFoundError,
PermissionError, TimeoutError, …), and its `strerror` is one line that says what to do. So callers
that handle files handle buckets too.

A request that fails for a passing reason is tried again, for a bounded time. Connections belong to
the process that made them: only URLs are pickled.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from wsi_unet.locations import Location
from wsi_unet.storage.s3.credentials import Access, read_access
from wsi_unet.storage.s3.errors import import_obstore, is_key_missing, os_errors

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Store

CONNECT_TIMEOUT = timedelta(seconds=5)
TIMEOUT = timedelta(seconds=120)
"""Time limit of one request, from its first byte to its answer's last."""

RETRY_TIMEOUT = timedelta(seconds=20)
"""Counts from the first try; after it nothing is tried again."""

RETRIES = 1000
"""More than there is time for: `RETRY_TIMEOUT` is the limit."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=200), timedelta(seconds=5)


@dataclass(frozen=True)
class StoredBytes:
    """The bytes of a key, or some of them.

    Attributes:
        data: the bytes.
        size: number of bytes of the whole key.
        tag: the ETag, which changes with the key's content.
    """

    data: bytes
    size: int
    tag: str | None


@dataclass(frozen=True)
class Bucket:
    """The keys below a URL. Picklable; holds nothing open.

    Attributes:
        url: "s3://bucket" or "s3://bucket/folder".
    """

    url: Location

    @property
    def name(self) -> str:
        """The bucket's name."""
        return str(self.url).partition("://")[2].partition("/")[0]

    def full_key(self, key: str) -> str:
        """Return the key from the bucket's root."""
        folder = str(self.url).partition("://")[2].partition("/")[2]
        return "/".join(part for part in (folder, key) if part)

    def get(self, key: str, most: int | None = None) -> StoredBytes | None:
        """Return all bytes of a key, None if it isn't there.

        Args:
            key: the key.
            most: of a key with more bytes than this only the size and the tag are returned.

        Raises:
            OSError: it can't be read.
        """
        return self._get(key, {}, most)

    def get_range(self, key: str, start: int, stop: int, tag: str | None) -> StoredBytes | None:
        """Return bytes [start, stop) of a key, None if it isn't there.

        Args:
            key: the key.
            start: the first byte; inside the key.
            stop: the byte after the last; where the key ends before, fewer bytes are returned.
            tag: the tag it had before; if it has another one by now, that is an error.

        Raises:
            OSError: it can't be read, or has changed.
        """
        options: GetOptions = {"range": (start, stop)}
        return self._get(key, options if tag is None else {**options, "if_match": tag})

    def get_first(self, key: str, length: int) -> StoredBytes | None:
        """Return the first `length` bytes of a key, or all there are; None if it isn't there.

        Raises:
            OSError: it can't be read.
        """
        return self._get_end(key, {"range": (0, length)})

    def get_last(self, key: str, length: int) -> StoredBytes | None:
        """Return the last `length` bytes of a key, or all there are; None if it isn't there.

        Raises:
            OSError: it can't be read.
        """
        return self._get_end(key, {"range": {"suffix": length}})

    async def get_async(
        self, key: str, options: GetOptions, most: int | None = None
    ) -> StoredBytes | None:
        """Return a key's bytes or, as the options say, some of them; None if it isn't there.

        Args:
            key: the key.
            options: which bytes.
            most: of a key with more bytes than this only the size and the tag are returned.

        Raises:
            OSError: it can't be read.
        """
        with os_errors(self.name):
            try:
                answer = await import_obstore().get_async(
                    self.connect(), self.full_key(key), options=options
                )
                meta = answer.meta
                size = int(meta["size"])
                if most is not None and size > most:
                    return StoredBytes(b"", size, meta["e_tag"])
                data = await answer.bytes_async()
                return StoredBytes(data.to_bytes(), size, meta["e_tag"])
            except FileNotFoundError as error:
                if is_key_missing(error):
                    return None
                raise

    def _get_end(self, key: str, options: GetOptions) -> StoredBytes | None:
        try:
            return self._get(key, options)
        except OSError as error:
            # An empty key has no ranges; S3 calls a request for one an error.
            if error.errno == errno.ERANGE and self.size(key) == 0:
                return self._get(key, {})
            raise

    def _get(self, key: str, options: GetOptions, most: int | None = None) -> StoredBytes | None:
        with os_errors(self.name):
            try:
                answer = import_obstore().get(self.connect(), self.full_key(key), options=options)
                meta = answer.meta
                size = int(meta["size"])
                data = b"" if most is not None and size > most else answer.bytes().to_bytes()
                return StoredBytes(data, size, meta["e_tag"])
            except FileNotFoundError as error:
                if is_key_missing(error):
                    return None
                raise

    def size(self, key: str) -> int | None:
        """Return the number of bytes of a key, None if it isn't there.

        Raises:
            OSError: it can't be looked at.
        """
        with os_errors(self.name):
            try:
                return int(import_obstore().head(self.connect(), self.full_key(key))["size"])
            except FileNotFoundError as error:
                if is_key_missing(error):
                    return None
                raise

    def put(self, key: str, data: bytes) -> None:
        """Replace a key in one atomic step.

        Raises:
            OSError: it can't be written.
        """
        with os_errors(self.name):
            # One request, however large: a killed writer would leave parts of an upload that are
            # invisible but cost money.
            import_obstore().put(self.connect(), self.full_key(key), data, use_multipart=False)

    def create(self, key: str, data: bytes) -> bool:
        """Put a key unless it is there; return whether it was put.

        Raises:
            OSError: it can't be written.
        """
        obstore = import_obstore()
        with os_errors(self.name):
            try:
                obstore.put(self.connect(), self.full_key(key), data, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
            return True

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Replace a key if it still has that tag; return whether it was replaced.

        Raises:
            OSError: it can't be written.
        """
        obstore = import_obstore()
        with os_errors(self.name):
            try:
                obstore.put(self.connect(), self.full_key(key), data, mode={"e_tag": tag})
            except (obstore.exceptions.PreconditionError, obstore.exceptions.AlreadyExistsError):
                return False
            except FileNotFoundError as error:
                if is_key_missing(error):
                    return False
                raise
            return True

    def delete(self, key: str) -> None:
        """Remove a key; it is no error if it isn't there.

        Raises:
            OSError: it can't be removed.
        """
        with os_errors(self.name):
            try:
                import_obstore().delete(self.connect(), self.full_key(key))
            except FileNotFoundError as error:
                if not is_key_missing(error):
                    raise

    def delete_all(self, prefix: str) -> None:
        """Remove a key and every key below it.

        Raises:
            OSError: something can't be removed.
        """
        obstore = import_obstore()
        with os_errors(self.name):
            for batch in obstore.list(self.connect(), self.full_key(prefix)):
                obstore.delete(self.connect(), [entry["path"] for entry in batch])
        self.delete(prefix)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield every key below a prefix ("" for all) and its size in bytes, sorted.

        Raises:
            OSError: the bucket can't be listed.
        """
        skipped = len(self.full_key("")) + 1 if self.full_key("") else 0
        with os_errors(self.name):
            for batch in import_obstore().list(self.connect(), self.full_key(prefix) or None):
                for entry in batch:
                    yield entry["path"][skipped:], int(entry["size"])

    def connect(self) -> S3Store:
        """Return this process's connection to the bucket.

        Raises:
            OSError: obstore isn't installed, or there are no credentials.
        """
        return _connect(self.name, read_access(), os.getpid())


def open_bucket(url: str | os.PathLike[str] | Location) -> Bucket:
    """Return the keys below a URL. Touches nothing.

    Raises:
        OptionError: it isn't the URL of a bucket.
    """
    return Bucket(Location.parse(url))


@lru_cache(maxsize=64)
def _connect(bucket: str, access: Access, _process: int) -> S3Store:
    """Return this process's connection to a bucket; connections don't survive a fork."""
    import_obstore()
    from obstore.store import S3Store

    config, provider = access.connection_settings()
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

"""Recognising a slide again by its content, wherever it lies and whenever it was copied."""

from __future__ import annotations

import hashlib

from wsi_unet.errors import SlideError
from wsi_unet.slides.sources.opening import open_source
from wsi_unet.slides.sources.source import ByteSource

END_BYTES = 1 << 20


def file_digest(source: ByteSource, metadata: str) -> str:
    """Return the SHA-256 of a file's size, its first and last MiB, and its metadata.

    Reading gigabytes to tell two slides apart would cost more than it is worth; sizes, tile
    tables and both ends differ between any two that matter.

    Args:
        source: the file.
        metadata: what else identifies the content, such as a digest of its tile tables.

    Returns:
        64 hexadecimal digits.

    Raises:
        SlideError: the file can't be read.
    """
    digest = hashlib.sha256(metadata.encode())
    size = source.size
    digest.update(size.to_bytes(8, "little"))
    length = min(size, END_BYTES)
    ends = source.request([(0, length), (size - length, length)])
    try:
        for end in range(2):
            digest.update(ends.get(end))
    except OSError as error:
        raise SlideError(f"{source.location}: can't be read: {error.strerror or error}") from error
    return digest.hexdigest()


def path_digest(location: str, metadata: str) -> str:
    """Return the `file_digest` of a file that isn't open.

    Raises:
        SlideError: the file can't be read.
    """
    try:
        source = open_source(location)
    except OSError as error:
        raise SlideError(f"{location}: can't be read: {error.strerror or error}") from error
    try:
        return file_digest(source, metadata)
    finally:
        source.close()

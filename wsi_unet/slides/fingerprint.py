"""Recognising a slide by its content, wherever it is stored and whenever it was copied."""

from __future__ import annotations

import hashlib
from pathlib import Path

from wsi_unet.errors import SlideError, os_errors_as
from wsi_unet.locations import Location
from wsi_unet.slides.sources.opening import open_source
from wsi_unet.slides.sources.source import ByteSource

END_BYTES = 1 << 20
"""How much of either end of a file counts."""


def file_digest(source: ByteSource, metadata: str) -> str:
    """Return the SHA-256 of a file's size, its first and last MiB, and its metadata.

    Reading gigabytes to distinguish two slides isn't worth it: their sizes, tile tables or ends
    differ anyway.

    Args:
        source: the file.
        metadata: what else identifies the content, such as a digest of the tile tables.

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
    with os_errors_as(SlideError, source.location):
        for end in range(2):
            digest.update(ends.get(end))
    return digest.hexdigest()


def path_digest(path: Path, metadata: str) -> str:
    """Return the `file_digest` of a file that isn't open.

    Raises:
        SlideError: the file can't be read.
    """
    with os_errors_as(SlideError, path):
        source = open_source(Location.parse(path))
    try:
        return file_digest(source, metadata)
    finally:
        source.close()

"""Recognising a slide again by its content, wherever it lies and whenever it was copied."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from wsi_unet.errors import SlideError

END_BYTES = 1 << 20


def file_digest(path: Path, metadata: str) -> str:
    """Return the SHA-256 of a file's size, its first and last MiB, and its metadata.

    Reading gigabytes to tell two slides apart would cost more than it is worth; sizes, tile
    tables and both ends differ between any two that matter.

    Args:
        path: the file.
        metadata: what else identifies the content, such as a digest of its tile tables.

    Returns:
        64 hexadecimal digits.

    Raises:
        SlideError: the file can't be read.
    """
    digest = hashlib.sha256(metadata.encode())
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(size.to_bytes(8, "little"))
            digest.update(file.read(END_BYTES))
            file.seek(max(0, size - END_BYTES))
            digest.update(file.read(END_BYTES))
    except OSError as error:
        raise SlideError(f"{path}: can't be read: {error.strerror or error}") from error
    return digest.hexdigest()

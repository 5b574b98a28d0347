"""Files that are replaced atomically: whoever reads one sees the old content or the new."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from wsi_unet.errors import OutputError

PARTIAL = ".*.partial"
"""Pattern of the files that a killed process may leave behind."""


def replace_file(path: Path, *contents: bytes | memoryview) -> None:
    """Replace a file atomically, on the disk before this returns.

    Args:
        path: path of the file.
        contents: its new content, one piece after the other.

    Raises:
        OutputError: if it can't be written; the old file stays.
    """
    new = path.with_name(f".{path.name}.partial")
    try:
        with new.open("wb") as file:
            for content in contents:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)  # it may fill the rest of a full disk
        raise OutputError(f"can't write {path}: {error.strerror or error}") from error

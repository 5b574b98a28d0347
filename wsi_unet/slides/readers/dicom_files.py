"""Finding the DICOM files of a folder by their content: archives name them by numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from wsi_unet.errors import SlideError, os_errors_as
from wsi_unet.regular_files import open_regular

MAGIC_OFFSET, MAGIC = 128, b"DICM"
MAX_FILES = 10_000
"""Files that are looked into; a slide has some ten."""
_INDEX = "DICOMDIR"
"""The table of contents of a medium, itself DICOM, but no image."""


def find_dicom_files(folder: Path) -> Iterator[Path]:
    """Yield the DICOM files in a folder and those inside it, in the order of their names.

    Raises:
        SlideError: a folder or file can't be read.
    """
    return (path for path in islice(_walk(folder), MAX_FILES) if _is_dicom(path))


def is_dicom(head: bytes) -> bool:
    """Return whether a file that begins like this is DICOM."""
    return head[MAGIC_OFFSET : MAGIC_OFFSET + len(MAGIC)] == MAGIC


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise SlideError(f"{folder}: can't be read: {error.strerror or error}") from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if name != _INDEX)


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with os_errors_as(SlideError, path), open_regular(path) as file:
        return is_dicom(file.read(MAGIC_OFFSET + len(MAGIC)))

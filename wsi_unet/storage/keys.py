"""What a key may be, and the keys of what lies beside the pixels and their metadata."""

from __future__ import annotations

import re

from wsi_unet.errors import OutputError

BOOKKEEPING = ".wsi_unet"
"""Folder of the progress, the lock and temporary files."""

LOCK_NAME = "lock.json"
LOCK_KEY = f"{BOOKKEEPING}/{LOCK_NAME}"
"""Key of the lock, which says who is writing; see `wsi_unet.storage.locking.lock`."""

LONGEST_KEY = 1024
"""The most bytes of a key: what S3 allows."""

_PART = r"(?!\.{1,2}(?:/|\Z))[^/\0]+"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")


def check_key(key: str) -> str:
    """Return `key` if it names something below a store's root, on a disk and in a bucket alike.

    >>> check_key("labels/nuclei/0/c/3/4")
    'labels/nuclei/0/c/3/4'

    Raises:
        OutputError: it is empty or absolute, has an empty part, "." or "..", or isn't text that
            every store can keep.
    """
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        length = LONGEST_KEY + 1
    if length > LONGEST_KEY or not _KEY.fullmatch(key):
        shown = key if len(key) <= 80 else f"{key[:77]}..."
        raise OutputError(
            f"{shown!r} can't be a key in a store: that is names between slashes, without '..', "
            f"at most {LONGEST_KEY} bytes"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it is "", which stands for the whole store, or a key.

    Raises:
        OutputError: it can't be a key.
    """
    return check_key(prefix) if prefix else prefix

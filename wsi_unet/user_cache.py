"""Remembering measurements between runs, as small JSON documents in the user's cache folder.

No result depends on them. A document that is missing, damaged, or that other users could have
written is ignored, and one that can't be written isn't remembered.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsi_unet.user_folders import find_cache_folder, is_private

MOST_BYTES = 4096
"""Size that a document may have."""
MOST_DOCUMENTS = 256
"""Number of documents that are kept; the oldest go first."""

_NAME = re.compile(r"\.?[0-9a-f]{32}\.json(\.[0-9a-f]{16}\.partial)?")
"""The names of our files; nothing else is ever removed."""


def recall(key: Mapping[str, Any]) -> Any:
    """Return what was remembered under a key; None if there is nothing that can be trusted.

    Args:
        key: everything that the value depends on, as JSON has it.
    """
    folder = _find_folder()
    if folder is None:
        return None
    try:
        document = json.loads(_read(folder / _name(key)))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("key") != json.loads(json.dumps(key)):
        return None
    return document.get("value")


def remember(key: Mapping[str, Any], value: Any) -> None:
    """Remember a value under a key, if that is possible; it replaces what was there, atomically.

    Args:
        key: everything that the value depends on, as JSON has it.
        value: a small value, as JSON has it.
    """
    content = json.dumps({"key": key, "value": value}, allow_nan=False).encode()
    folder = _find_folder(make=True)
    if folder is None or len(content) > MOST_BYTES:
        return
    path = folder / _name(key)
    partial = folder / f".{path.name}.{secrets.token_hex(8)}.partial"
    try:
        _write(partial, content)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    _remove_oldest(folder)


def _name(key: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return f"{digest[:32]}.json"


def _find_folder(*, make: bool = False) -> Path | None:
    """Return our folder; None if there is none, or if somebody else could write there."""
    try:
        folder = find_cache_folder()
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if is_private(folder) else None
    except (OSError, RuntimeError, ValueError):  # RuntimeError: the user has no home
        return None


def _read(path: Path) -> bytes:
    """Return the content of a file of ours.

    Raises:
        OSError: it can't be read, is a link or no file, too large, or somebody else's.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(f"{path} isn't a file of ours")
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(f"{path} is too large")
    return content


def _write(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)


def _remove_oldest(folder: Path) -> None:
    """Remove our oldest files, those that a killed process left half-written among them."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
    for _, name in sorted(found)[:-MOST_DOCUMENTS]:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)

"""Folders of this user: where the cache is, and whether a folder is this user's alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def find_cache_folder() -> Path:
    """Return the folder of the user's cache, which may not be there yet.

    It is `$WSI_UNET_CACHE`, else the folder `wsi-unet` in `$XDG_CACHE_HOME` (if that is absolute,
    as its specification wants) or in `~/.cache`.

    Raises:
        RuntimeError: the user has no home folder.
    """
    given = os.environ.get("WSI_UNET_CACHE")
    if given:
        return Path(given)
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (root if root.is_absolute() else Path.home() / ".cache") / "wsi-unet"


def is_private(folder: Path) -> bool:
    """Return whether a path is a folder, no link, that this user has and no other may write to.

    Raises:
        OSError: it isn't there, or can't be looked at.
    """
    found = folder.lstat()
    others_may_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not others_may_write

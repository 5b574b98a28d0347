"""Opening the store at a location: a folder's or a bucket's."""

from __future__ import annotations

import os
from pathlib import Path

from wsi_unet.errors import OutputError
from wsi_unet.locations import Location
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.store import ByteStore


def open_store(location: str | os.PathLike[str] | Location) -> ByteStore:
    """Return the store below a folder or a URL, which need not exist yet. Touches nothing.

    The folder may be a link to one, and so may those above it; below it no link is followed.

    Raises:
        OutputError: the location is a file, a link to nothing, or can't be looked at.
        OptionError: it is a URL that can't be written to, or in the home folder of a user who
            isn't there.
    """
    output = Location.parse(location)
    if output.is_url:
        from wsi_unet.storage.remote_store import RemoteStore

        return RemoteStore(output)
    root = output.path
    try:
        is_file = root.exists() and not root.is_dir()
        dangling = None if root.exists() else _find_dangling_link(root)
    except OSError as error:  # a folder above may not be entered, or a name is too long
        reason = error.strerror or error
        raise OutputError(
            f"{output}: can't be looked at: {reason}; choose another folder"
        ) from error
    if is_file:
        raise OutputError(f"{output}: is a file, but an output is a folder; choose another path")
    if dangling is not None:
        raise OutputError(
            f"{output}: {dangling} is a link to something that isn't there; make the folder that "
            "it points to, or remove the link"
        )
    return LocalStore(root)


def _find_dangling_link(root: Path) -> Path | None:
    """Return the link to nothing on the way to a folder that doesn't exist, if there is one."""
    for folder in (root, *root.parents):
        if folder.exists():
            return None
        if folder.is_symlink():
            return folder
    return None

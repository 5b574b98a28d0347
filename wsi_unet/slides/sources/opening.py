"""Opening the file or folder that a slide is stored in, on a disk or in an object store."""

from __future__ import annotations

from wsi_unet.locations import Location
from wsi_unet.slides.sources.folder import Folder, LocalFolder
from wsi_unet.slides.sources.source import ByteSource, LocalFile


def open_source(location: Location) -> ByteSource:
    """Open a file, on a disk or in an object store.

    Raises:
        FileNotFoundError: there is none.
        OSError: it can't be read.
    """
    if not location.is_url:
        return LocalFile(location)
    from wsi_unet.slides.sources.remote_source import RemoteSource

    return RemoteSource(location)


def open_folder(location: Location) -> Folder:
    """Return the folder at a location, without touching it."""
    if not location.is_url:
        return LocalFolder(location)
    from wsi_unet.slides.sources.remote_folder import RemoteFolder

    return RemoteFolder(location)

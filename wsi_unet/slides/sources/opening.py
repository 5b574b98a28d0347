"""Opening the file or object that a slide is in."""

from __future__ import annotations

from wsi_unet import locations
from wsi_unet.slides.sources.source import ByteSource, LocalFile


def open_source(location: str) -> ByteSource:
    """Open a file or an object.

    Raises:
        FileNotFoundError: there is none.
        OSError: it can't be read.
    """
    if not locations.is_url(location):
        return LocalFile(location)
    from wsi_unet.slides.sources.remote_source import RemoteSource

    return RemoteSource(location)

"""Paths of models, checkpoints and programs, which lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from wsi_unet.errors import ModelError
from wsi_unet.locations import Location

AnyPath = str | os.PathLike[str] | Location
"""How a caller may say where a file or folder is."""


def parse_path(place: AnyPath) -> Path:
    """Return the absolute path that a user's path means; "~" is the home folder.

    Raises:
        ModelError: for a URL.
        OptionError: for a URL that isn't one of an object, or the home folder of an unknown user.
    """
    location = Location.parse(place)
    if location.is_url:
        raise ModelError(
            f"{location} is a URL; models are read from and written to paths of this machine, so "
            "copy it there first"
        )
    return location.path

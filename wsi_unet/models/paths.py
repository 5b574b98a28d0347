"""Paths of models, checkpoints and programs, which lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from wsi_unet.errors import ModelError
from wsi_unet.locations import Location

AnyPath = str | os.PathLike[str] | Location
"""The path of a file or folder, as a caller may give it."""


def parse_path(path: AnyPath) -> Path:
    """Return the absolute path that a user's path means; "~" is the home folder.

    Raises:
        ModelError: for a URL.
        OptionError: for an incomplete URL, or the home folder of an unknown user.
    """
    location = Location.parse(path)
    if location.is_url:
        raise ModelError(
            f"{location} is a URL; models are read from and written to paths of this machine, so "
            "copy it there first"
        )
    return location.path

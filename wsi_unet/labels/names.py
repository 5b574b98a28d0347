"""The names that label groups and runs may have."""

from __future__ import annotations

import re

from wsi_unet.errors import OptionError
from wsi_unet.storage.keys import LOCK_NAME

IMAGE_NAME = "image"
"""Name of the run that stores the slide's image."""

OBJECTS = "objects"
"""The folder of the tables of objects, which aren't Zarr."""

OBJECTS_SUFFIX = ".objects"
"""What the name of a label image of objects ends in, after that of their label group."""

EDITED_SUFFIX = ".edited"
"""What the name of a table of corrected objects ends in, after that of their label group."""

LABEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def object_image_name(label: str) -> str:
    """Return the name of the label image of a label group's objects.

    >>> object_image_name("nuclei")
    'nuclei.objects'
    """
    return f"{label}{OBJECTS_SUFFIX}"


def edited_name(label: str) -> str:
    """Return the name of the corrected objects of a label group.

    >>> edited_name("nuclei")
    'nuclei.edited'
    """
    return f"{label}{EDITED_SUFFIX}"


def check_label_name(name: str) -> str:
    """Return `name` if a label group can have it.

    Raises:
        OptionError: it can't be a folder's name, or it is reserved for the image's progress, the
            metadata or the lock.
    """
    if not LABEL_NAME.fullmatch(name) or name in (IMAGE_NAME, "zarr.json", LOCK_NAME):
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise OptionError(
            f"{shown!r} can't name a label group: use up to 64 letters, digits, '.', '_' and '-', "
            f"beginning with a letter or digit, and not {IMAGE_NAME!r}"
        )
    return name

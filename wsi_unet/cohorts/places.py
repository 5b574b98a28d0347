"""Paths and URLs as people write them: joined, compared, and one inside the other."""

from __future__ import annotations

import os

from wsi_unet.locations import Location


def join_place(folder: str, name: str) -> str:
    """Return a path or URL below a folder, as plain text, as it was typed."""
    return f"{folder.rstrip('/')}/{name}"


def is_inside(place: str, folder: str) -> bool:
    """Return whether a path or URL lies below a folder, once its ".." are worked out.

    >>> is_inside("out/a/../b", "./out"), is_inside("out/../b", "out"), is_inside("out", "out")
    (True, False, False)
    """
    inner = normalise_location(Location.parse(place))
    outer = normalise_location(Location.parse(folder))
    return inner.text.startswith(outer.text.rstrip("/") + "/")


def normalise_location(location: Location) -> Location:
    """Return the form that all spellings of a location have in common."""
    return location if location.is_url else Location(os.path.normpath(location.path))


def resolve_links(location: Location) -> Location:
    """Return where a path leads, links followed; a URL has none."""
    return location if location.is_url else Location(str(location.path.resolve()))


def is_same_file(one: str, other: str) -> bool:
    """Return whether two paths or URLs name one file, links followed."""
    return resolve_links(Location.parse(one)) == resolve_links(Location.parse(other))

"""Locations: paths on this machine, or URLs in an object store.

What a user writes is parsed once, where it enters, into a `Location`. What follows the scheme of a
URL is taken literally: nothing in it is escaped, and a "?" or "#" belongs to the name.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from wsi_unet.errors import OptionError

SCHEMES = ("s3",)
"""The kinds of URLs that can be read from and written to."""

_PREFIXES = tuple(f"{scheme}://" for scheme in SCHEMES)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://+(.*)", re.DOTALL)
_FOLDED_URL = re.compile(rf"({'|'.join(SCHEMES)}):/+(.*)", re.DOTALL | re.IGNORECASE)
"""A URL that went through `Path`, which folds the two slashes into one."""


@dataclass(frozen=True, slots=True)
class Location:
    """A path on this machine, or a URL in an object store.

    >>> slide = Location.parse("S3://bucket/slides/a.svs")
    >>> str(slide), slide.is_url, slide.name
    ('s3://bucket/slides/a.svs', True, 'a.svs')
    >>> str(slide.parent / "b.svs")
    's3://bucket/slides/b.svs'

    Attributes:
        text: an absolute path, or a URL with its scheme in lower case and no slash at the end.
    """

    text: str

    @classmethod
    def parse(cls, location: str | os.PathLike[str] | Location) -> Location:
        """Return the location that a user's path or URL means.

        >>> Location.parse("S3://bucket/results/")
        Location(text='s3://bucket/results')

        Args:
            location: a path, which may be relative or begin with "~", or a URL; a location is
                returned as it is.

        Raises:
            OptionError: the URL has an unknown scheme, no bucket, or empty, "." or ".." parts; or
                the path is in the home folder of a user who doesn't exist.
        """
        if isinstance(location, Location):
            return location
        text = os.fspath(location)
        url = _URL.fullmatch(text) or _FOLDED_URL.fullmatch(text)
        return cls(_absolute(text) if url is None else _normalised(text, url[1], url[2]))

    @property
    def is_url(self) -> bool:
        """Whether it is a URL rather than a path."""
        return self.text.startswith(_PREFIXES)

    @property
    def path(self) -> Path:
        """The path on this machine.

        Raises:
            ValueError: it is a URL; check `is_url` first.
        """
        if self.is_url:
            raise ValueError(f"{self.text} is a URL, not a path")
        return Path(self.text)

    @property
    def name(self) -> str:
        """The last part."""
        return self.text.rpartition("/")[2] if self.is_url else PurePath(self.text).name

    @property
    def parent(self) -> Location:
        """The folder that it is in; a bucket, like a root folder, is its own parent."""
        if not self.is_url:
            return Location(str(PurePath(self.text).parent))
        above = self.text.rpartition("/")[0]
        return self if above.endswith("/") else Location(above)

    def __truediv__(self, below: str) -> Location:
        """Return what lies below it ("labels", or "labels/nuclei")."""
        return Location(f"{self.text}/{below}" if self.is_url else str(PurePath(self.text, below)))

    def __str__(self) -> str:
        return self.text


def _absolute(path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:  # "~somebody" who doesn't exist
        raise OptionError(f"{path}: {error}; give the full path") from error


def _normalised(url: str, scheme: str, rest: str) -> str:
    scheme, rest = scheme.lower(), rest.rstrip("/")
    if scheme not in SCHEMES:
        raise OptionError(
            f"{scheme}://{rest}: {scheme}:// can't be read or written; paths and "
            f"{', '.join(_PREFIXES)} can, so copy it there first"
        )
    if any(part in ("", ".", "..") for part in rest.split("/")):
        raise OptionError(
            f"{scheme}://{rest}: isn't a complete URL; one looks like "
            f"{scheme}://bucket/folder/name, with nothing empty between the slashes"
        )
    return f"{scheme}://{rest}"


def is_utf8(text: str) -> bool:
    """Return whether a path can be recorded; Linux allows file names that aren't text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

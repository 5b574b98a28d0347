"""Where things are: a path on this machine, or a URL in an object store.

What a user writes is parsed once, where it enters, into a `Location`. What comes after the scheme
of a URL is taken as it is: nothing in it is escaped, and a "?" or "#" belongs to the name.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from wsi_unet.errors import OptionError

SCHEMES = ("s3",)
"""The kinds of URLs that can be read from and written to."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://+(.*)", re.DOTALL)
_FOLDED = re.compile(rf"({'|'.join(SCHEMES)}):/+(.*)", re.DOTALL | re.IGNORECASE)
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
    def parse(cls, place: str | os.PathLike[str] | Location) -> Location:
        """Return the location that a user's path or URL means.

        Args:
            place: a path, "~" and relative ones too, or a URL; a location is returned as it is.

        Raises:
            OptionError: a URL of an unknown scheme, without a bucket or with empty, "." or ".."
                parts; or the home folder of somebody who isn't there.
        """
        return place if isinstance(place, Location) else cls(resolve(os.fspath(place)))

    @property
    def is_url(self) -> bool:
        """Whether it is a URL rather than a path."""
        return is_url(self.text)

    @property
    def path(self) -> Path:
        """The path on this machine.

        Raises:
            ValueError: it is a URL; check `is_url` first.
        """
        if self.is_url:
            raise ValueError(f"{self.text} is no path")
        return Path(self.text)

    @property
    def name(self) -> str:
        """The last part."""
        return name(self.text)

    @property
    def parent(self) -> Location:
        """What it lies in; a bucket, like a root folder, lies in itself."""
        return Location(parent(self.text))

    def __truediv__(self, below: str) -> Location:
        """Return what lies below it ("labels", or "labels/nuclei")."""
        return Location(join(self.text, below))

    def __str__(self) -> str:
        return self.text


def is_url(place: str | PurePath) -> bool:
    """Whether `place` is a URL, of whatever scheme, rather than a path.

    >>> is_url("s3://bucket/slide.svs"), is_url("slides/a.svs")
    (True, False)
    """
    return _match(place) is not None


def resolve(place: str | PurePath) -> str:
    """Return the location that a user's path or URL means.

    >>> resolve("S3://bucket/results/")
    's3://bucket/results'

    Args:
        place: a path, "~" and relative ones too, or a URL.

    Raises:
        OptionError: a URL of an unknown scheme, without a bucket or with empty, "." or ".." parts;
            or the home folder of somebody who isn't there.
    """
    found = _match(place)
    if found is None:
        try:
            return str(Path(place).expanduser().absolute())
        except RuntimeError as error:  # "~somebody" who isn't there
            raise OptionError(f"{place}: {error}; give the full path") from error
    scheme, rest = found[1].lower(), found[2].rstrip("/")
    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise OptionError(
            f"{place}: {scheme}:// can't be read or written; paths and {known} can, so copy it "
            "there first"
        )
    if any(part in ("", ".", "..") for part in rest.split("/")):
        raise OptionError(
            f"{place}: isn't the URL of an object; it looks like {scheme}://bucket/folder/name, "
            "with nothing empty between the slashes"
        )
    return f"{scheme}://{rest}"


def name(location: str) -> str:
    """Return the last part of a location.

    >>> name("s3://bucket/slides/a.svs"), name("/slides/a.svs")
    ('a.svs', 'a.svs')
    """
    return _rest(location).rpartition("/")[2] if is_url(location) else PurePath(location).name


def join(location: str, *parts: str) -> str:
    """Return what lies below a location.

    >>> join("s3://bucket/results", "a.ome.zarr", "labels")
    's3://bucket/results/a.ome.zarr/labels'
    """
    return "/".join((location, *parts)) if is_url(location) else str(PurePath(location, *parts))


def parent(location: str) -> str:
    """Return what a location lies in; a bucket, like a root folder, lies in itself.

    >>> parent("s3://bucket/slides/a.svs"), parent("s3://bucket")
    ('s3://bucket/slides', 's3://bucket')
    """
    if not is_url(location):
        return str(PurePath(location).parent)
    above = location.rpartition("/")[0]
    return location if above.endswith("/") else above


def _match(place: str | PurePath) -> re.Match[str] | None:
    return _URL.fullmatch(str(place)) or _FOLDED.fullmatch(str(place))


def _rest(location: str) -> str:
    return location.partition("://")[2]

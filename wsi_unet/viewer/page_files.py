"""The files of the page, by the names by which they are asked for: no others can be."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""Content types by suffix."""


class PageFile(NamedTuple):
    """A file of the page.

    Attributes:
        kind: its content type.
        content: its bytes.
    """

    kind: str
    content: bytes


@cache
def read_page_files() -> MappingProxyType[str, PageFile]:
    """Return the files of the page by name; they are read once."""
    found = {}
    for file in (files("wsi_unet.viewer") / "page").iterdir():
        kind = KINDS.get(f".{file.name.rpartition('.')[2]}")
        if kind is not None:
            found[file.name] = PageFile(kind, file.read_bytes())
    return MappingProxyType(found)

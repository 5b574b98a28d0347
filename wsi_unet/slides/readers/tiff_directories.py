"""The directories of a TIFF, one per image in it, walked before anything else reads them.

Each directory says where the next one is. In damaged and forged files they run in circles, and
libraries follow them for ever.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from wsi_unet.errors import SlideError, os_errors_as
from wsi_unet.image_files import TIFF_HEADS
from wsi_unet.slides.sources.source import ByteSource

MAX_DIRECTORIES = 10_000
"""Images in one file; a slide has some ten."""
MAX_ENTRIES = 4096
"""Tags of one image, as tifffile bounds them."""

_SUBIFDS = 330
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BYTES |= {16: 8, 17: 8, 18: 8}
"""Bytes per value, by type."""


@dataclass(frozen=True)
class _Format:
    """How a kind of TIFF stores its directories: format and size of each kind of number."""

    order: str
    count: str
    entry: str
    offset: str

    @property
    def entry_bytes(self) -> int:
        return struct.calcsize(self.order + self.entry)

    def unpack(self, kind: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack(self.order + kind, data[: struct.calcsize(self.order + kind)])


@dataclass(frozen=True)
class Directory:
    """One image's directory.

    Attributes:
        offset: where it starts, bytes.
        complete: whether all of it lies inside the file, and it is one.
        lost: codes of the tags whose values lie beyond the end of the file or are of no known type.
        inner: offsets of the directories inside it (SubIFDs).
        following: offset of the next directory; 0 for the last.
    """

    offset: int
    complete: bool
    lost: tuple[int, ...]
    inner: tuple[int, ...]
    following: int


def walk_directories(source: ByteSource) -> list[Directory]:
    """Return all directories, those inside others too.

    Raises:
        SlideError: they run in a circle, there are too many, or the file can't be read.
    """
    with os_errors_as(SlideError, source.location):
        return list(_walk(source))


def _walk(source: ByteSource) -> Iterator[Directory]:
    head = source.read_at(0, 16)
    if not head.startswith(TIFF_HEADS):
        raise SlideError(f"{source.location}: isn't a TIFF, by its first bytes; check the file")
    layout, start = _layout(head, source.location.name)
    seen: set[int] = set()
    waiting = [(start, True)]
    while waiting:
        offset, outermost = waiting.pop()
        if not offset:
            continue
        if offset in seen:
            raise SlideError(
                f"{source.location}: its list of images runs in a circle (twice to byte {offset}); "
                "the file is damaged, fetch it again"
            )
        if len(seen) >= MAX_DIRECTORIES:
            raise SlideError(
                f"{source.location}: holds more than {MAX_DIRECTORIES:,} images; a slide has some "
                "ten, so extract the one that you mean"
            )
        seen.add(offset)
        directory = _read(source, layout, offset)
        yield directory
        waiting += [(inner, False) for inner in directory.inner]
        if outermost:  # libraries don't read what follows an inner directory
            waiting.append((directory.following, True))


def _layout(head: bytes, name: str) -> tuple[_Format, int]:
    order = ">" if head[:2] == b"MM" else "<"
    if head[2:3] == b"+" or head[3:4] == b"+":
        layout = _Format(order, "Q", "HHQQ", "Q")
        return layout, layout.unpack("Q", head[8:].ljust(8, b"\0"))[0]
    # NDPI has large offsets in small directories; tifffile goes by the name as well.
    ndpi = order == "<" and name.lower().endswith(".ndpi")
    layout = _Format(order, "H", "HHII", "Q" if ndpi else "I")
    return layout, layout.unpack(layout.offset, head[4:].ljust(8, b"\0"))[0]


def _read(source: ByteSource, layout: _Format, offset: int) -> Directory:
    length = struct.calcsize(layout.order + layout.count)
    data = source.read_at(offset, length)
    count = layout.unpack(layout.count, data)[0] if len(data) == length else 0
    if not 0 < count <= MAX_ENTRIES:
        return Directory(offset, complete=False, lost=(), inner=(), following=0)
    entries = count * layout.entry_bytes
    data = source.read_at(offset + length, entries + 8)
    tail = data[entries:]
    complete = len(tail) >= struct.calcsize(layout.order + layout.offset)
    lost: list[int] = []
    inner: tuple[int, ...] = ()
    value_bytes = struct.calcsize(layout.order + layout.entry[-1])
    for position in range(0, min(entries, len(data)), layout.entry_bytes):
        entry = data[position : position + layout.entry_bytes]
        if len(entry) < layout.entry_bytes:
            break
        code, kind, values, where = layout.unpack(layout.entry, entry)
        size = values * _BYTES.get(kind, 1)
        inline = size <= value_bytes
        if kind not in _BYTES or (not inline and where + size > source.size):
            lost.append(code)
        elif code == _SUBIFDS and values <= MAX_DIRECTORIES:
            stored = entry[-value_bytes:] if inline else source.read_at(where, size)
            number = "Q" if _BYTES.get(kind) == 8 else "I"
            if kind in (4, 13, 16, 18):
                inner = struct.unpack(f"{layout.order}{values}{number}", stored[:size])
    following = layout.unpack(layout.offset, tail.ljust(8, b"\0"))[0]
    return Directory(offset, complete, tuple(lost), inner, following)

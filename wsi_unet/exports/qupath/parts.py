"""The files of an export: slide.geojson.gz, or slide-001.geojson.gz and so on.

The first line of each is the collection's beginning with provenance, every other one a feature.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from wsi_unet.errors import OptionError
from wsi_unet.exports.destination import check_destination
from wsi_unet.exports.provenance import KEY
from wsi_unet.objects.provenance import CREATOR

SUFFIX = ".geojson.gz"

LEVEL = 1
"""Level of compression: level 6 takes seven times as long for a fifth less."""

HEAD_BYTES = 1 << 12
"""First bytes of a file in which its part is told; it is told before provenance."""

_HEAD = re.compile(
    rb'\{"type":"FeatureCollection","%s":\{"creator":"%s","part":(\d{1,9}),"parts":(\d{1,9}),'
    % (KEY.encode(), CREATOR.encode())
)


class Part(NamedTuple):
    """Which file of an export one is.

    Attributes:
        number: from 1.
        of: number of the export's files.
    """

    number: int
    of: int


def name_part(path: Path, part: Part) -> Path:
    """Return the path of a file of the export to a path.

    >>> name_part(Path("slide.geojson.gz"), Part(2, 3))
    PosixPath('slide-002.geojson.gz')
    """
    if part.of == 1:
        return path
    return path.with_name(f"{path.name.removesuffix(SUFFIX)}-{part.number:03d}{SUFFIX}")


def list_parts(path: Path, count: int) -> list[Part]:
    """Return the files of an export to a path, where nothing else is.

    Raises:
        OptionError: QuPath wouldn't read a file of that name.
        OutputError: something is in a file's place that isn't the same file of an earlier export.
    """
    if not path.name.removesuffix(SUFFIX) or not path.name.endswith(SUFFIX):
        raise OptionError(
            f"{path}: QuPath knows files by their suffix; let it end in {SUFFIX}", option="path"
        )
    parts = [Part(number, count) for number in range(1, count + 1)]
    for part in parts:
        check_destination(name_part(path, part), partial(_is_same, part=part))
    return parts


def find_earlier(path: Path) -> list[Path]:
    """Return the files of an earlier export to a path.

    A file that bears the name of one, but is the export of another result, isn't among them.
    """
    stem = re.escape(path.name.removesuffix(SUFFIX))
    pattern = re.compile(rf"{stem}-(\d{{3,9}}){re.escape(SUFFIX)}")
    with os.scandir(path.parent) as entries:
        numbered = [(entry.name, pattern.fullmatch(entry.name)) for entry in entries]
    files = {path.with_name(name): Part(int(match[1]), 2) for name, match in numbered if match}
    files[path] = Part(1, 1)
    return sorted(file for file, part in files.items() if _is_file(file) and _is_same(file, part))


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_same(path: Path, part: Part) -> bool:
    """Return whether a file is a part of that number, of an export of one file or of several."""
    found = read_part(path)
    return found is not None and (found.number, found.of > 1) == (part.number, part.of > 1)


def is_qupath(path: Path) -> bool:
    """Return whether a file is one that `export_qupath` wrote."""
    return read_part(path) is not None


def read_part(path: Path) -> Part | None:
    """Return which file of an export a file is; None if it is none of ours."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        packed = file.read(HEAD_BYTES)
    try:
        head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, HEAD_BYTES)
    except zlib.error:
        return None
    match = _HEAD.match(head)
    return None if match is None else Part(int(match[1]), int(match[2]))


class PartFile:
    """A file that is being written: packed and written by a thread while the next text is made."""

    def __init__(self, file: BinaryIO, pool: ThreadPoolExecutor) -> None:
        self._file, self._pool = file, pool
        self._packer = zlib.compressobj(LEVEL, wbits=zlib.MAX_WBITS | 16)
        self._pending: Future[None] | None = None

    def write(self, text: bytes | memoryview) -> None:
        """Write a text, which mustn't change any more, once the one before is written.

        Raises:
            OSError: the one before can't be written.
        """
        self.wait()
        self._pending = self._pool.submit(self._write, text)

    def _write(self, text: bytes | memoryview) -> None:
        self._file.write(self._packer.compress(text))

    def wait(self) -> None:
        """Return when all is written."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def close(self) -> None:
        """Write what is left."""
        self.wait()
        self._file.write(self._packer.flush())


@contextmanager
def open_part(
    path: Path, part: Part, provenance: Mapping[str, Any], pool: ThreadPoolExecutor
) -> Iterator[PartFile]:
    """Yield a file that awaits its features, separated by commas; its end is written afterwards."""
    said = {"creator": CREATOR, "part": part.number, "parts": part.of, **provenance}
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    with path.open("xb") as file:
        packed = PartFile(file, pool)
        try:
            packed.write(f'{{"type":"FeatureCollection","{KEY}":{text},"features":[\n'.encode())
            yield packed
            packed.write(b"\n]}\n")
        finally:
            packed.wait()
        packed.close()

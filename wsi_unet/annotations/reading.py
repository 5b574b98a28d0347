"""Reading files of annotations, whatever their format, packed by gzip or not."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

from wsi_unet.annotations.annotation import Annotations
from wsi_unet.annotations.asap import parse_asap
from wsi_unet.annotations.geojson import parse_geojson
from wsi_unet.errors import AnnotationError, foreign_errors_as, os_errors_as
from wsi_unet.regular_files import read_regular

HEAD_BYTES = 1024
"""The number of first bytes from which a file's format is detected."""
LARGEST_FILE = 1 << 31
"""Bytes that a file may have, and unpack to."""
FREE_BYTES, LARGEST_RATIO = 1 << 25, 50
"""A packed file may unpack to the first number of bytes, or to this many times its size; real ones
grow ten times or so."""
_SPACE = b"\xef\xbb\xbf \t\r\n"
_GZIP = b"\x1f\x8b"

PARSERS = {b"{": parse_geojson, b"[": parse_geojson, b"<": parse_asap}
"""Which function parses a file, by the file's first character."""


def looks_like_annotations(head: bytes) -> bool:
    """Return whether a file that begins like this may hold annotations: JSON or XML.

    >>> looks_like_annotations(b'  {"type"'), looks_like_annotations(b"<?xml")
    (True, True)
    """
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
        except zlib.error:
            return False
    return _first_character(head) in PARSERS


def read_annotations(path: Path) -> Annotations:
    """Read the annotations in a GeoJSON or ASAP XML file; the format is detected from the content.

    Args:
        path: the file, which may be packed by gzip.

    Returns:
        At least one annotation.

    Raises:
        AnnotationError: it can't be read, has neither format, is invalid, or holds no polygon.
    """
    with os_errors_as(AnnotationError, path):
        data = read_regular(path, LARGEST_FILE)
    return parse_annotations(path, data)


def parse_annotations(path: Path, data: bytes) -> Annotations:
    """Return the annotations in the bytes of a file; see `read_annotations`.

    Args:
        path: the file, for messages.
        data: its bytes, packed by gzip or not.

    Raises:
        AnnotationError: they have neither format, are invalid, or hold no polygon.
    """
    if data.startswith(_GZIP):
        data = _unpack(path, data)
    if not data.strip(_SPACE):
        raise AnnotationError(f"{path}: the file is empty; export the annotations again")
    parse = PARSERS.get(_first_character(data[:HEAD_BYTES]))
    if parse is None:
        raise AnnotationError(f"{path}: is neither GeoJSON nor ASAP XML")
    read = parse(path, data)
    if not read.annotations:
        reason = f" ({read.left_out})" if read.empty else ""
        raise AnnotationError(
            f"{path}: holds no polygons{reason}; annotate areas, not points or lines"
        )
    return read


def _unpack(path: Path, data: bytes) -> bytes:
    limit = min(LARGEST_FILE, max(FREE_BYTES, LARGEST_RATIO * len(data)))
    with foreign_errors_as(AnnotationError, f"{path}: can't be unpacked"):
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(data)).read(limit + 1)
    if len(unpacked) > limit:
        raise AnnotationError(
            f"{path}: unpacks to more than {limit >> 20} MiB, suspiciously many for its "
            f"{len(data)} bytes; if it is right, unpack it with gunzip"
        )
    return unpacked


def _first_character(head: bytes) -> bytes:
    return head.lstrip(_SPACE)[:1]

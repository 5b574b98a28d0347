"""Reading files of annotations, whatever their format."""

from __future__ import annotations

from pathlib import Path

from wsi_unet.annotations.annotation import Annotation
from wsi_unet.annotations.asap import parse_asap
from wsi_unet.annotations.geojson import parse_geojson
from wsi_unet.errors import AnnotationError, os_errors_as

HEAD_BYTES = 256
"""The number of first bytes from which a file's format is detected."""
_SPACE = b"\xef\xbb\xbf \t\r\n"

PARSERS = {b"{": parse_geojson, b"[": parse_geojson, b"<": parse_asap}
"""Which function parses a file, by the file's first character."""


def looks_like_annotations(head: bytes) -> bool:
    """Return whether a file that begins like this may hold annotations: JSON or XML.

    >>> looks_like_annotations(b'  {"type"'), looks_like_annotations(b"<?xml")
    (True, True)
    """
    return _first_character(head) in PARSERS


def read_annotations(path: Path) -> list[Annotation]:
    """Read the annotations in a GeoJSON or ASAP XML file; the format is detected from the content.

    Args:
        path: the file.

    Raises:
        AnnotationError: it can't be read, has neither format, is invalid, or holds no polygon.
    """
    with os_errors_as(AnnotationError, path):
        data = path.read_bytes()
    if not data.strip(_SPACE):
        raise AnnotationError(f"{path}: the file is empty; export the annotations again")
    parse = PARSERS.get(_first_character(data[:HEAD_BYTES]))
    if parse is None:
        raise AnnotationError(f"{path}: is neither GeoJSON nor ASAP XML")
    annotations = parse(path, data)
    if not annotations:
        raise AnnotationError(f"{path}: holds no polygons; annotate areas, not points or lines")
    return annotations


def _first_character(head: bytes) -> bytes:
    return head.lstrip(_SPACE)[:1]

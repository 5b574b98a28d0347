"""Image files: their first bytes, opening them, and what libraries raise on damaged ones."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

from PIL import Image, PngImagePlugin

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of TIFF and BigTIFF, of either byte order."""

MALFORMED = (
    OSError,
    ValueError,  # also tifffile's own
    KeyError,
    IndexError,
    TypeError,
    RuntimeError,  # imagecodecs
    AssertionError,
    SyntaxError,  # Pillow on a broken PNG
    struct.error,
)
"""What tifffile, imagecodecs and Pillow raise on damaged or forged files."""


def open_image(path: Path, *, png: bool) -> Image.Image:
    """Open an image with Pillow; the caller checks its size before decoding the pixels.

    A PNG may be of any size: Pillow's limit, which holds for the whole process, is only checked
    by `Image.open`.

    Args:
        path: the image.
        png: whether it is a PNG.

    Raises:
        OSError, SyntaxError: it is damaged, or not an image.
        DecompressionBombError: it isn't a PNG, and is far too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return PngImagePlugin.PngImageFile(path) if png else Image.open(path)

"""What image files of masks and labels begin with, and how libraries fail on damaged ones."""

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
"""What tifffile, imagecodecs and Pillow raise on files that are damaged or made up."""


def open_image(path: Path, *, png: bool) -> Image.Image:
    """Open an image with Pillow; the caller looks at its size before the pixels are decoded.

    A PNG may be of any size: Pillow's limit belongs to the whole process and to `Image.open`.

    Raises:
        OSError, SyntaxError: it is damaged, or no image.
        DecompressionBombError: it is no PNG, and far too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return PngImagePlugin.PngImageFile(path) if png else Image.open(path)

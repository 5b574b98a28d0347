"""Image files: their first bytes, opening them, and how much of them may be decoded at once."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import IO

from PIL import Image, JpegImagePlugin, PngImagePlugin

from wsi_unet.errors import OptionError
from wsi_unet.geometry import Shape
from wsi_unet.wording import write_size

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
JPEG_HEAD = b"\xff\xd8\xff"
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of TIFF and BigTIFF, of either byte order."""

MAX_PIXELS_VARIABLE = "WSI_UNET_MAX_PIXELS"
"""The environment variable that sets `max_pixels`, for workers on other machines there too."""
MAX_PIXELS = 400_000_000
"""Pixels that are decoded at once by default, 20,000 x 20,000: at most 1.6 GB of RGBA."""
PIECES_PER_IMAGE = 2_500
"""How many times `max_pixels` a whole image may have: by default a million times a million."""


def max_pixels() -> int:
    """Return how many pixels may be decoded at once: a tile, strip or chunk, or a PNG or JPEG.

    Files say how large they are, and a few hundred bytes can say anything.

    Raises:
        OptionError: the environment variable isn't a positive number.
    """
    given = os.environ.get(MAX_PIXELS_VARIABLE)
    if given is None:
        return MAX_PIXELS
    if not (given.isascii() and given.isdigit() and int(given) > 0):
        raise OptionError(f"{MAX_PIXELS_VARIABLE} must be a number of pixels, not {given!r}")
    return int(given)


def check_size(shape: Shape, piece: Shape) -> None:
    """Refuse an image that is too large to be read.

    Args:
        shape: (rows, columns) of the image, px.
        piece: (rows, columns) that are decoded at once, px.

    Raises:
        ValueError: it is; the message says why, and how to read it nevertheless.
    """
    most = max_pixels()
    raised = f"if the file is right, set the environment variable {MAX_PIXELS_VARIABLE} to more"
    if piece[0] * piece[1] > most:
        raise ValueError(
            f"{write_size(piece)} are decoded at once, more than {most:,}; save it as a "
            f"tiled, pyramidal TIFF, or, {raised}"
        )
    if shape[0] * shape[1] > most * PIECES_PER_IMAGE:
        raise ValueError(f"{write_size(shape)} are more than {most * PIECES_PER_IMAGE:,}; {raised}")


def open_image(file: str | Path | IO[bytes], head: bytes) -> Image.Image:
    """Open an image with Pillow; the caller checks its size before decoding the pixels.

    A PNG or JPEG may be of any size: Pillow's limit, which holds for the whole process, is only
    checked by `Image.open`.

    Args:
        file: the image.
        head: its first 8 bytes or more, by which PNGs and JPEGs are known.

    Raises:
        OSError, SyntaxError: it is damaged, or not an image.
        DecompressionBombError: it is neither, and far too large.
    """
    # Filters belong to the whole process: a thread that takes its own back may bring back another's
    # for good. These stay; we say ourselves what is too large, and that EXIF is damaged.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin$")
    if head.startswith(PNG_HEAD):
        return PngImagePlugin.PngImageFile(file)
    if head.startswith(JPEG_HEAD):
        return JpegImagePlugin.JpegImageFile(file)
    return Image.open(file)

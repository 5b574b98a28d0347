"""Images of a single plane, as masks and labels are: opening TIFFs, and what samples mean.

What decides the meaning of a sample is looked at here, for masks and labels alike: whether zero is
white (PhotometricInterpretation), what a palette makes of it, and how the image is turned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.errors import InputError, SlideError
from wsi_unet.geometry import Shape
from wsi_unet.locations import Location
from wsi_unet.logs import warn
from wsi_unet.samples import (
    BLACK_IS_ZERO,
    JPEG,
    PALETTE,
    RGB,
    UPRIGHT,
    YCBCR,
    UnclearSamplesError,
    describe_colours,
    image_orientation,
)
from wsi_unet.slides.library_messages import silence_libraries
from wsi_unet.slides.readers.tiff_directories import walk_directories
from wsi_unet.slides.sources.opening import open_source

TRANSPARENCY = 4
"""PhotometricInterpretation of a transparency mask: 1 bit, 1 inside."""
PLAIN = (BLACK_IS_ZERO, RGB, PALETTE, TRANSPARENCY)
"""Those whose samples are 0 where the image is black, or numbers of a palette."""
TOGETHER = 1
"""PlanarConfiguration of samples that lie one after the other, pixel by pixel."""
GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's names of images with one number per pixel, which is 0 where they are black."""
NEW_JPEG = 7
"""Value of Compression whose decoder makes YCbCr RGB."""


@contextmanager
def open_tiff(path: Path, kind: type[InputError]) -> Iterator[Any]:
    """Open a TIFF with tifffile, once its directories are known to end.

    Args:
        path: a regular file.
        kind: the class of the error to raise.

    Raises:
        InputError: of `kind`: its directories run in a circle, or it can't be read.
    """
    import tifffile

    try:
        source = open_source(Location.parse(path))
        try:
            walk_directories(source)
        finally:
            source.close()
    except SlideError as error:
        raise kind(str(error)) from error
    with silence_libraries(), tifffile.TiffFile(path) as tiff:
        yield tiff


def find_largest(tiff: Any) -> Any:
    """Return the largest of a TIFF's images, of which the others are thumbnails; None without any.

    Args:
        tiff: tifffile's object; images of one size, which it takes for one stack, are one series.
    """
    return max(
        tiff.series,
        key=lambda series: series.keyframe.imagelength * series.keyframe.imagewidth,
        default=None,
    )


def check_photometric(page: Any) -> None:
    """Refuse a TIFF's page whose samples aren't zero where the image is black, beyond doubt.

    Raises:
        UnclearSamplesError: it is in a colour space like CMYK or Lab; or white is zero, which
            viewers and Pillow honour, and tifffile, which writes bool arrays like that, doesn't.
    """
    if page.photometric in PLAIN or (page.photometric == YCBCR and page.compression == NEW_JPEG):
        return
    raise UnclearSamplesError(describe_colours(int(page.photometric)))


def check_kept_numbers(page: Any) -> None:
    """Refuse a TIFF's page whose compression doesn't keep the numbers of its pixels.

    Raises:
        UnclearSamplesError: it is JPEG, which makes a 7 or a 9 of an 8.
    """
    if int(page.compression) in JPEG:
        raise UnclearSamplesError(
            "is compressed by JPEG, which changes the numbers of classes; export it again, "
            "uncompressed or compressed by LZW or deflate"
        )


def check_palette(shown: NDArray[np.bool_], indices: NDArray[Any]) -> None:
    """Refuse pixels whose palette shows zero as a colour, or another number as black.

    Args:
        shown: which pixels aren't black.
        indices: their numbers in the palette.

    Raises:
        UnclearSamplesError: the two disagree.
    """
    if (shown != (indices != 0)).any():
        raise UnclearSamplesError(
            "has a palette that shows 0 as a colour, or another number as black, so that programs "
            "read it in two ways; save it as a grey image, 0 where nothing is marked"
        )


def plane_shape(level: Any, samples: Sequence[int] = (1,)) -> Shape | None:
    """Return (rows, columns) of a TIFF's level that is a single plane; None if it is anything else.

    Axes of length one, which writers add in front or behind, don't count.

    Args:
        level: tifffile's level.
        samples: how many samples a pixel may have, one after the other.
    """
    frame = level.keyframe
    shape, stored = (int(frame.imagelength), int(frame.imagewidth)), int(frame.samplesperpixel)
    single = len(level.pages) == 1 and level.pages[0] is not None and 0 not in shape
    together = stored == 1 or int(frame.planarconfig) == TOGETHER
    whole = math.prod(level.shape) == math.prod(shape) * stored
    return shape if single and together and whole and stored in samples else None


def decoded_orientation(image: Image.Image, path: Path) -> int:
    """Decode an image that Pillow opened, and return how it is turned, from 1, upright, to 8.

    Args:
        image: the image, whose size was checked.
        path: the file, for a warning that its EXIF is damaged.
    """
    image.load()  # a PNG may state its orientation after its pixels
    orientation = image_orientation(image)
    if orientation is None:
        warn(f"{path}: its EXIF is damaged and was left out")
    return orientation or UPRIGHT


def map_pixels(path: Path, level: Any) -> NDArray[Any]:
    """Return the pixels of a TIFF's level that lie in the file as they are, mapped into memory.

    Args:
        path: the file.
        level: tifffile's level, of one page whose `is_final` is true.

    Returns:
        (h, w) or (h, w, samples), of the page's data type in the file's byte order.
    """
    frame = level.keyframe
    stored = frame.dtype.newbyteorder(frame.parent.byteorder)
    return np.memmap(path, stored, "r", level.pages[0].dataoffsets[0], frame.shape)

"""Images of a single plane, as masks and labels are: opening TIFFs, and what samples mean.

What decides the meaning of a sample is looked at here, for masks and labels alike: whether zero is
white (PhotometricInterpretation), what a palette makes of it, and how the image is turned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.errors import InputError, SlideError
from wsi_unet.locations import Location
from wsi_unet.slides.library_messages import capture_library_messages
from wsi_unet.slides.readers.tiff_directories import walk_directories
from wsi_unet.slides.sources.opening import open_source

WHITE_IS_ZERO, PALETTE, YCBCR = 0, 3, 6
"""Values of the tag PhotometricInterpretation."""
PLAIN = (1, 2, PALETTE, 4)
"""Those whose samples are 0 where the image is black, or of a palette numbers."""
JPEG = 7
ORIENTATION = 274
"""The tag that says how an image is turned, in TIFF and in EXIF."""

_FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1)}
_FLIPS |= {5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
"""Steps along rows and columns that make an image upright, from 5 on after transposing it."""

T = TypeVar("T", bound=np.generic)


class UnclearImageError(ValueError):
    """Programs would read an image in different ways; the message says why and what to do."""


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
    with capture_library_messages(), tifffile.TiffFile(path) as tiff:
        yield tiff


def check_photometric(page: Any) -> None:
    """Refuse a TIFF's page whose samples aren't zero where the image is black, beyond doubt.

    Raises:
        UnclearImageError: it is in a colour space like CMYK or Lab; or white is zero, which viewers
            and Pillow honour, and tifffile, which writes bool arrays like that, doesn't.
    """
    if page.photometric == WHITE_IS_ZERO:
        raise UnclearImageError(
            "stores white as zero, which programs read in two ways; save it with black as zero "
            "(PhotometricInterpretation 1, in tifffile photometric='minisblack')"
        )
    if page.photometric in PLAIN or (page.photometric == YCBCR and page.compression == JPEG):
        return
    name = getattr(page.photometric, "name", str(page.photometric))
    raise UnclearImageError(f"is stored in the colour space {name}; save it as a grey image")


def check_palette(shown: NDArray[np.bool_], indices: NDArray[Any]) -> None:
    """Refuse pixels whose palette shows zero as a colour, or another number as black.

    Args:
        shown: which pixels aren't black.
        indices: their numbers in the palette.

    Raises:
        UnclearImageError: the two disagree.
    """
    if (shown != (indices != 0)).any():
        raise UnclearImageError(
            "has a palette that shows 0 as a colour, or another number as black, so that programs "
            "read it in two ways; save it as a grey image, 0 where nothing is marked"
        )


def image_orientation(image: Image.Image) -> int:
    """Return how an image that Pillow opened is turned, from 1, upright, to 8."""
    return _known_orientation(image.getexif().get(ORIENTATION))


def page_orientation(page: Any) -> int:
    """Return how a TIFF's page is turned, from 1, upright, to 8."""
    tag = page.tags.get(ORIENTATION)
    return _known_orientation(None if tag is None else tag.value)


def turn_upright(plane: NDArray[T], orientation: int) -> NDArray[T]:
    """Return a plane (h, w) as it is shown, a view.

    Args:
        plane: as it is stored.
        orientation: the tag's value (TIFF 6.0, section 8); 1 is upright.
    """
    rows, columns = _FLIPS[orientation]
    return (plane.T if orientation >= 5 else plane)[::rows, ::columns]


def _known_orientation(value: Any) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1

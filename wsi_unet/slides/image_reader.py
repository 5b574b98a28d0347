"""Small slides: PNG, JPEG and whatever else Pillow decodes in one go."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.slides.colour import to_rgb
from wsi_unet.slides.fingerprint import file_digest
from wsi_unet.slides.levels import pyramid

_CONVERTED = {"1": "L", "L": "L", "LA": "LA", "P": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
"""Pillow's modes that can be read, and what they are converted to before `to_rgb`."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH = 24
"""Where a PNG states its bits per sample."""


class ImageReader:
    """Reads an image with one level, decoded when first needed and then kept.

    Such a file's resolution is for printers, so it isn't taken for a pixel size; and it is read
    as stored: an orientation tag isn't applied.
    """

    name = "image"
    vendor = None
    mpp = None

    def __init__(self, path: Path) -> None:
        """Open an image and look at its header.

        Raises:
            SlideError: it isn't an image, isn't 8-bit grey or RGB(A), or is too large to be
                decoded in one go.
        """
        self._path = path
        self._lock = threading.Lock()
        self._pixels: NDArray[np.uint8] | None = None
        self._check_depth()
        with self._open() as image:
            if image.mode not in _CONVERTED:
                raise SlideError(
                    f"{path}: its pixels are of kind {image.mode!r}; only 8-bit grey and RGB are "
                    "supported, so convert it first"
                )
            shape = image.height, image.width
            self.levels = pyramid([shape], [shape])
            self.compression = image.format
            self.properties: Mapping[str, str] = {
                "image.format": str(image.format),
                "image.mode": image.mode,
            }

    def _check_depth(self) -> None:
        """Refuse 16-bit PNGs, which Pillow would open as 8-bit RGB without a word."""
        try:
            with self._path.open("rb") as file:
                head = file.read(_PNG_DEPTH + 1)
        except OSError as error:
            raise SlideError(f"{self._path}: can't be read: {error.strerror or error}") from error
        if head.startswith(_PNG_SIGNATURE) and head[_PNG_DEPTH:] == b"\x10":
            raise SlideError(
                f"{self._path}: its pixels have 16 bits per sample; only 8 bits are supported, so "
                "convert it to 8-bit RGB first"
            )

    def _open(self) -> Image.Image:
        try:
            with warnings.catch_warnings():
                # Pillow warns from 89 Mpx on; what it refuses (179 Mpx) is refused below.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return Image.open(self._path)
        except Image.DecompressionBombError as error:
            raise SlideError(
                f"{self._path}: too large to be decoded in one go ({error}); convert it to a "
                "tiled, pyramidal TIFF"
            ) from error
        except UnidentifiedImageError as error:
            raise SlideError(f"{self._path}: isn't an image in a known format") from error
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on bad headers
            raise SlideError(f"{self._path}: can't be opened as an image ({error})") from error

    def _decoded(self) -> NDArray[np.uint8]:
        with self._lock:
            if self._pixels is None:
                with self._open() as image:
                    try:
                        converted = image.convert(_CONVERTED[image.mode])
                    except (OSError, ValueError, SyntaxError) as error:
                        raise SlideError(
                            f"{self._path}: can't be decoded ({error}); the file is damaged"
                        ) from error
                pixels = np.asarray(converted)
                self._pixels = to_rgb(pixels[..., None] if pixels.ndim == 2 else pixels)
            return self._pixels

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box inside the image.

        Raises:
            SlideError: the image can't be decoded.
        """
        return self._decoded()[box.slices()].copy()

    def fingerprint(self) -> str:
        """Return hexadecimal digits of the file's size and both its ends.

        Raises:
            SlideError: the file can't be read.
        """
        return file_digest(self._path, f"image {self.levels[0].shape}")

    def close(self) -> None:
        """Forget the pixels."""
        self._pixels = None

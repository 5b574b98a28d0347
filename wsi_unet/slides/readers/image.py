"""Small slides: PNG, JPEG and whatever else Pillow decodes in one go."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsi_unet.colour import to_rgb
from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.slides.fingerprint import file_digest
from wsi_unet.slides.levels import pyramid
from wsi_unet.slides.sources.source import ByteSource

_CONVERTED = {"1": "L", "L": "L", "LA": "LA", "P": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
"""Pillow's modes that can be read, and what they are converted to before `to_rgb`."""

PIECE = 4 << 20
"""Bytes that are asked for at once."""

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

    def __init__(self, source: ByteSource) -> None:
        """Open an image and look at its header.

        Args:
            source: the file, which the reader owns from here on.

        Raises:
            SlideError: it isn't an image, isn't 8-bit grey or RGB(A), or is too large to be
                decoded in one go.
        """
        self._source = source
        self._lock = threading.Lock()
        self._pixels: NDArray[np.uint8] | None = None
        try:
            self._look()
        except BaseException:
            source.close()
            raise

    def _look(self) -> None:
        place = self._source.location
        head = self._bytes(0, _PNG_DEPTH + 1)
        if head.startswith(_PNG_SIGNATURE) and head[_PNG_DEPTH:] == b"\x10":
            # Pillow would open these as 8-bit RGB without a word.
            raise SlideError(
                f"{place}: its pixels have 16 bits per sample; only 8 bits are supported, so "
                "convert it to 8-bit RGB first"
            )
        with self._open(self._source.open()) as image:
            if image.mode not in _CONVERTED:
                raise SlideError(
                    f"{place}: its pixels are of kind {image.mode!r}; only 8-bit grey and RGB are "
                    "supported, so convert it first"
                )
            shape = image.height, image.width
            self.levels = pyramid([shape], [shape])
            self.compression = image.format
            self.properties: Mapping[str, str] = {
                "image.format": str(image.format),
                "image.mode": image.mode,
            }

    def _bytes(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, however many, as quickly as its source gives them."""
        stop = min(offset + length, self._source.size)
        pieces = [(start, min(PIECE, stop - start)) for start in range(offset, stop, PIECE)]
        try:
            asked = self._source.request(pieces)
            return b"".join(asked.get(number) for number in range(len(pieces)))
        except OSError as error:
            raise SlideError(
                f"{self._source.location}: can't be read: {error.strerror or error}"
            ) from error

    def _open(self, file: str | IO[bytes]) -> Image.Image:
        place = self._source.location
        try:
            with warnings.catch_warnings():
                # Pillow warns from 89 Mpx on; what it refuses (179 Mpx) is refused below.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return Image.open(file)
        except Image.DecompressionBombError as error:
            raise SlideError(
                f"{place}: too large to be decoded in one go ({error}); convert it to a tiled, "
                "pyramidal TIFF"
            ) from error
        except UnidentifiedImageError as error:
            raise SlideError(f"{place}: isn't an image in a known format") from error
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on bad headers
            raise SlideError(f"{place}: can't be opened as an image ({error})") from error

    def _decoded(self) -> NDArray[np.uint8]:
        with self._lock:
            if self._pixels is None:
                whole = io.BytesIO(self._bytes(0, self._source.size))
                with self._open(whole) as image:
                    try:
                        converted = image.convert(_CONVERTED[image.mode])
                    except (OSError, ValueError, SyntaxError) as error:
                        raise SlideError(
                            f"{self._source.location}: can't be decoded ({error}); the file is "
                            "damaged"
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
        return file_digest(self._source, f"image {self.levels[0].shape}")

    def close(self) -> None:
        """Close the file and forget the pixels."""
        self._source.close()
        self._pixels = None

"""Small slides: PNG, JPEG and anything else that Pillow decodes in one go."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from typing_extensions import override

from wsi_unet.colour import to_rgb
from wsi_unet.errors import SlideError, os_errors_as
from wsi_unet.geometry import Box
from wsi_unet.image_files import PNG_HEAD
from wsi_unet.slides.fingerprint import file_digest
from wsi_unet.slides.levels import make_levels
from wsi_unet.slides.slide import Reader
from wsi_unet.slides.sources.source import ByteSource

_CONVERTED_TO = {"1": "L", "L": "L", "LA": "LA", "P": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
"""The modes of Pillow that are supported, and what each is converted to before `to_rgb`."""

PIECE_BYTES = 4 << 20
"""Bytes that are requested at once."""

_PNG_DEPTH_OFFSET = 24
"""Where in a PNG its bits per sample stand, bytes."""


class ImageReader(Reader):
    """Reads an image of one level, which is decoded when first needed and then kept.

    Its resolution is meant for printers, so it isn't taken for a pixel size; and pixels are read
    as stored: an orientation tag isn't applied.
    """

    name = "image"
    vendor = None
    mpp = None

    def __init__(self, source: ByteSource) -> None:
        """Open an image and check its header.

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
            self._check_header()
        except BaseException:
            source.close()
            raise

    def _check_header(self) -> None:
        location = self._source.location
        head = self._bytes(0, _PNG_DEPTH_OFFSET + 1)
        if head.startswith(PNG_HEAD) and head[_PNG_DEPTH_OFFSET:] == b"\x10":
            # Pillow would silently open these as 8-bit RGB.
            raise SlideError(
                f"{location}: its pixels have 16 bits per sample; only 8 bits are supported, so "
                "convert it to 8-bit RGB first"
            )
        with self._open(self._source.open()) as image:
            if image.mode not in _CONVERTED_TO:
                raise SlideError(
                    f"{location}: its colour mode is {image.mode!r}; only 8-bit grey and RGB are "
                    "supported, so convert it first"
                )
            shape = image.height, image.width
            self.levels = make_levels([shape], [shape])
            self.compression = image.format
            self.properties: Mapping[str, str] = {
                "image.format": str(image.format),
                "image.mode": image.mode,
            }

    def _bytes(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, requested in pieces that a remote source reads at once."""
        stop = min(offset + length, self._source.size)
        starts = range(offset, stop, PIECE_BYTES)
        pieces = [(start, min(PIECE_BYTES, stop - start)) for start in starts]
        with os_errors_as(SlideError, self._source.location):
            ranges = self._source.request(pieces)
            return b"".join(ranges.get(number) for number in range(len(pieces)))

    def _open(self, file: str | IO[bytes]) -> Image.Image:
        location = self._source.location
        try:
            with warnings.catch_warnings():
                # Pillow warns from 89 Mpx on; what it refuses (179 Mpx) is refused below.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return Image.open(file)
        except Image.DecompressionBombError as error:
            raise SlideError(
                f"{location}: too large to be decoded in one go ({error}); convert it to a tiled, "
                "pyramidal TIFF"
            ) from error
        except UnidentifiedImageError as error:
            raise SlideError(f"{location}: isn't an image in a known format") from error
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on bad headers
            raise SlideError(f"{location}: can't be opened as an image ({error})") from error

    def _decoded(self) -> NDArray[np.uint8]:
        with self._lock:
            if self._pixels is None:
                whole = io.BytesIO(self._bytes(0, self._source.size))
                with self._open(whole) as image:
                    try:
                        converted = image.convert(_CONVERTED_TO[image.mode])
                    except (OSError, ValueError, SyntaxError) as error:
                        raise SlideError(
                            f"{self._source.location}: can't be decoded ({error}); the file is "
                            "damaged"
                        ) from error
                pixels = np.asarray(converted)
                self._pixels = to_rgb(pixels[..., None] if pixels.ndim == 2 else pixels)
            return self._pixels

    @override
    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        return self._decoded()[box.slices()].copy()

    @override
    def fingerprint(self) -> str:
        return file_digest(self._source, f"image {self.levels[0].shape}")

    @override
    def close(self) -> None:
        self._source.close()
        self._pixels = None

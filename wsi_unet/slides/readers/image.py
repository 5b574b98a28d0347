"""Small slides: PNG, JPEG and anything else that Pillow decodes in one go."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from typing_extensions import override

from wsi_unet.colour import to_rgb
from wsi_unet.errors import SlideError, foreign_errors_as, os_errors_as
from wsi_unet.geometry import Box, Shape
from wsi_unet.image_files import PNG_HEAD, open_image
from wsi_unet.samples import UPRIGHT, image_orientation
from wsi_unet.slides.fingerprint import file_digest
from wsi_unet.slides.levels import make_levels
from wsi_unet.slides.slide import Reader
from wsi_unet.slides.sources.source import ByteSource
from wsi_unet.wording import write_size

_CONVERTED_TO = {"1": "L", "L": "L", "LA": "LA", "P": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
"""The modes of Pillow that are supported, and what each is converted to before `to_rgb`."""

PIECE_BYTES = 4 << 20
"""Bytes that are requested at once."""

_PNG_DEPTH_OFFSET = 24
"""Where in a PNG its bits per sample stand, bytes; its kind of colours comes after them."""
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel, by a PNG's kind of colours."""
BEST_COMPRESSION = 1032
"""Bytes that one byte can stand for in a PNG (deflate); in a JPEG, pixels."""


class ImageReader(Reader):
    """Reads an image of one level, which is decoded when first needed and then kept as decoded.

    Its resolution is meant for printers, so it isn't taken for a pixel size.
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
        self._decoded: Image.Image | None = None
        try:
            self._check_header()
        except BaseException:
            source.close()
            raise

    def _check_header(self) -> None:
        location = self._source.location
        head = self._bytes(0, _PNG_DEPTH_OFFSET + 2)
        self._head = head
        depth, colours = head[_PNG_DEPTH_OFFSET:] if head.startswith(PNG_HEAD) else (8, 0)
        if depth == 16:
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
            if getattr(image, "n_frames", 1) > 1:
                raise SlideError(
                    f"{location}: holds several images, of which this reader can't choose one; "
                    "save the one that is meant alone"
                )
            shape = image.height, image.width
            self._refuse_impossible(shape, depth * _PNG_SAMPLES.get(colours, 1))
            self.levels = make_levels([shape], [shape])
            orientation = image_orientation(image)
            self.orientation = orientation or UPRIGHT
            if orientation is None:
                self.warnings = ("its EXIF is damaged and was left out",)
            self.compression = image.format
            self.colours = 1 if _CONVERTED_TO[image.mode].startswith("L") else 3
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

    def _refuse_impossible(self, shape: Shape, bits: int) -> None:
        """Refuse more pixels than the file's bytes can stand for."""
        size = self._source.size
        if shape[0] * math.ceil(shape[1] * bits / 8) > size * BEST_COMPRESSION:
            raise SlideError(
                f"{self._source.location}: says that it has {write_size(shape)}, but its "
                f"{size} bytes can't hold them; the file is damaged, fetch it again"
            )

    def _open(self, file: str | IO[bytes]) -> Image.Image:
        location = self._source.location
        try:
            with foreign_errors_as(SlideError, f"{location}: can't be opened as an image"):
                return open_image(file, self._head)
        except SlideError as error:
            if isinstance(error.__cause__, UnidentifiedImageError):
                raise SlideError(f"{location}: isn't an image in a known format") from error
            raise

    def _decode(self) -> Image.Image:
        """Return the whole image, as Pillow holds it: 1 byte per pixel if grey, else 4."""
        with self._lock:
            if self._decoded is None:
                location = self._source.location
                image = self._open(io.BytesIO(self._bytes(0, self._source.size)))
                with foreign_errors_as(
                    SlideError, f"{location}: can't be decoded, the file is damaged"
                ):
                    image.load()
                # A PNG may say it after its pixels.
                if (image_orientation(image) or UPRIGHT) != self.orientation:
                    raise SlideError(
                        f"{location}: says only after its pixels that it is turned; save it again"
                    )
                self._decoded = image
            return self._decoded

    @override
    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        image = self._decode()
        # One colour may stand for transparency, beside the pixels.
        mode = "RGBA" if "transparency" in image.info else _CONVERTED_TO[image.mode]
        pixels = np.asarray(image.crop((box.x0, box.y0, box.x1, box.y1)).convert(mode))
        return np.array(to_rgb(pixels[..., None] if pixels.ndim == 2 else pixels))

    @override
    def fingerprint(self) -> str:
        # Earlier versions turned no image; their runs aren't resumed.
        turned = f" orientation {self.orientation}" if self.orientation != UPRIGHT else ""
        return file_digest(self._source, f"image {self.levels[0].shape}{turned}")

    @override
    def close(self) -> None:
        self._source.close()
        self._decoded = None

"""Tiles as files: JPEG for the slide, PNG for what lies over it."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.viewer.tile_grid import TILE

JPEG_QUALITY = 88


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return RGB (h, w, 3) as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=JPEG_QUALITY)
    return file.getvalue()


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return RGBA (h, w, 4) as a PNG file, packed quickly rather than tightly."""
    if not pixels[..., 3].any():
        return _encode_empty(pixels.shape[0], pixels.shape[1])
    return _encode(pixels)


@cache
def encode_blank() -> bytes:
    """Return a tile of paper as a JPEG file."""
    return encode_jpeg(np.full((TILE, TILE, 3), 238, np.uint8))


@cache
def _encode_empty(rows: int, columns: int) -> bytes:
    return _encode(np.zeros((rows, columns, 4), np.uint8))


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=2)
    return file.getvalue()

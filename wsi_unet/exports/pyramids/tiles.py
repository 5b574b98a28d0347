"""Tiles as files hold them, made by several threads in bounded memory.

Tiles of OME-TIFF and chunks of OME-Zarr 0.4 are compressed alike, with zlib: every program reads
that, without a library of its own. Frames of DICOM are the same tiles, encoded otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape
from wsi_unet.labels.pyramid import CHUNK

TILE = CHUNK
"""Side of a tile, px: that of an inner chunk of the result's arrays."""

BAND_COLUMNS = 2048
"""Columns that are read at once: those of a shard, mostly."""

ZLIB_LEVEL = 4
"""Of libdeflate's levels 1 to 12; higher ones take twice as long for labels, and save little."""


def cut_bands(shape: Shape) -> Iterator[Box]:
    """Yield boxes of one row of tiles and `BAND_COLUMNS`, in the order of the tiles."""
    rows, columns = shape
    for y in range(0, rows, TILE):
        for x in range(0, columns, BAND_COLUMNS):
            yield Box(y, x, min(y + TILE, rows), min(x + BAND_COLUMNS, columns))


def split_band(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the tiles of a band (..., h, w), left to right, filled up with 0 to `TILE`."""
    for x in range(0, pixels.shape[-1], TILE):
        inside = pixels[..., x : x + TILE]
        if inside.shape[-2:] == (TILE, TILE):
            yield np.ascontiguousarray(inside)
            continue
        tile = np.zeros((*inside.shape[:-2], TILE, TILE), inside.dtype)
        tile[..., : inside.shape[-2], : inside.shape[-1]] = inside
        yield tile


def compress(tile: NDArray[Any]) -> bytes:
    """Return a tile as a zlib stream."""
    return bytes(imagecodecs.deflate_encode(tile.tobytes(), level=ZLIB_LEVEL))

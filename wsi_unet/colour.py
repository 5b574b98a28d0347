"""Colours: every slide is read as 8-bit RGB, which networks see in their own channel order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

WHITE = 255
"""Grey level of empty glass, and of an opaque alpha channel."""

Colour = tuple[int, int, int]
"""Red, green and blue, each 0 to 255."""

ChannelOrder = Literal["rgb", "bgr", "gray"]

CHANNEL_WEIGHTS: Mapping[ChannelOrder, Sequence[tuple[float, float, float]]] = {
    "rgb": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "bgr": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "gray": ((0.299, 0.587, 0.114),),  # luma of ITU-R BT.601
}
"""The weights of R, G and B in each channel of a network."""


def parse_colour(text: str) -> Colour:
    """Return the colour that a text such as "#ff8000", or "ff8000", names.

    >>> parse_colour("#ff8000")
    (255, 128, 0)
    """
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def to_rgb(pixels: NDArray[np.uint8], *, premultiplied: bool = False) -> NDArray[np.uint8]:
    """Return pixels as RGB: grey is repeated, transparent pixels are put on white.

    Args:
        pixels: (h, w, samples) uint8 with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)
            samples.
        premultiplied: whether colours are multiplied by alpha already.

    Returns:
        (h, w, 3) uint8, which may share memory with `pixels` and may be read-only.

    Raises:
        ValueError: `pixels` has another number of samples.
    """
    samples = pixels.shape[2]
    if samples not in (1, 2, 3, 4):
        raise ValueError(f"{samples} samples per pixel are neither grey nor RGB nor RGBA")
    if samples in (2, 4):
        colour, alpha = pixels[..., :-1], pixels[..., -1:]
        blend = _add_white if premultiplied else _blend_with_white
        pixels = blend(colour, alpha)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _blend_with_white(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return colour·alpha + white·(1 - alpha), rounded to the nearest integer."""
    if alpha.all() and alpha.min() == WHITE:
        return colour
    weight = alpha.astype(np.uint16)
    mixed = colour * weight + WHITE * (WHITE - weight)
    return ((mixed + 127) // 255).astype(np.uint8)


def _add_white(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return colour + white·(1 - alpha), for colours that are multiplied by alpha already."""
    mixed: NDArray[np.uint16] = colour.astype(np.uint16) + (WHITE - alpha)
    return np.minimum(mixed, WHITE).astype(np.uint8)

"""Zarr arrays whose absent chunks, which weren't scanned, are white if the image is in colour.

Writers leave out chunks that hold nothing but the fill value, which is 0 unless somebody chose it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_unet.colour import WHITE


class LevelArray:
    """The array of one level."""

    def __init__(self, array: zarr.Array[Any], axes: str) -> None:
        """Take an open array of uint8.

        Args:
            array: the array.
            axes: one letter for each of its dimensions; "c" is the channel.
        """
        channel = axes.find("c")
        colours = array.shape[channel] if channel >= 0 else 1
        self._array = array
        self._white: zarr.Array[Any] | None = None
        if colours == 3 and not array.fill_value:
            self._white = _filled_white(array)
        self._channel = channel
        self._whole_colours = channel >= 0 and array.chunks[channel] >= colours

    def shows_gaps(self, stored: int) -> bool:
        """Return whether absent chunks are shown white, given how many are stored."""
        files = self._array.shards or self._array.chunks
        grid = (-(-side // step) for side, step in zip(self._array.shape, files, strict=True))
        return self._white is not None and stored < math.prod(grid)

    def read(self, selection: tuple[Any, ...]) -> NDArray[np.uint8]:
        """Return the values of a selection; slices keep their axes, numbers drop them."""
        if self._white is None:
            return np.asarray(self._array[selection])
        if self._whole_colours:
            return np.asarray(self._white[selection])
        # Each colour has chunks of its own, and one that is 0 throughout, as in pure red, has none.
        pixels = np.array(self._array[selection])
        kept = [axis for axis, picked in enumerate(selection) if isinstance(picked, slice)]
        channel = kept.index(self._channel)
        if pixels.any(axis=channel).all():
            return pixels  # a gap would be black
        gap = (np.asarray(self._white[selection]) != pixels).all(axis=channel, keepdims=True)
        pixels[np.broadcast_to(gap, pixels.shape)] = WHITE
        return pixels


def _filled_white(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Return the array with another fill value; nothing is written."""
    metadata = copy.copy(array.metadata)
    object.__setattr__(metadata, "fill_value", np.uint8(WHITE))
    return zarr.Array(replace(array.async_array, metadata=metadata))

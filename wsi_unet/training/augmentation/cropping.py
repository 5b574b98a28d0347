"""Cropping samples from fields: windows of whole pixels, resized, rotated, deformed and flipped.

A sample is a square around a centre. Its image, labels and weights are cropped by the same `Crop`,
so they stay aligned. Resizing comes first: it is quick, and shrinking needs a filter that fits the
factor, which the interpolation at coordinates doesn't have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from wsi_unet.geometry import Box, Shape
from wsi_unet.models.inference.augmentation import View
from wsi_unet.training.augmentation.geometric import Warp

CUBIC_REACH = 2
"""How far around a position cubic interpolation looks, px."""

Interpolation = Literal["bicubic", "bilinear", "nearest"]

Planes = TypeVar("Planes", NDArray[np.uint8], NDArray[np.float32], torch.Tensor)


@dataclass(frozen=True, eq=False)
class Crop:
    """How a sample is cropped from a field.

    Attributes:
        side: side of the sample, px.
        shift: (y, x) of the window's centre from the sample's, whole px of the field.
        window: (rows, columns) of the window, px of the field.
        resized: side of the square to which the window is resized, px.
        grid: (1, side, side, 2) position (x, y) in that square, from −1 to 1, of each pixel; None:
            the middle of the square is taken.
        view: how the sample is flipped at the end.
    """

    side: int
    shift: tuple[int, int]
    window: Shape
    resized: int
    grid: torch.Tensor | None
    view: View

    @classmethod
    def from_warp(cls, warp: Warp, side: int) -> Crop:
        """Return how a sample of `side` x `side` px is cropped.

        The window has whole pixels around the sample's centre, so the scale is rounded to the
        nearest one with such a window; the window differs by 1 px at most.
        """
        margin = 0  # pixels needed around the sample, px of the resized square
        if warp.scale != (1.0, 1.0):
            margin += math.ceil(CUBIC_REACH / min(1.0, *warp.scale))
        coordinates = None
        if not warp.is_straight:
            coordinates = warp.coordinates(side)
            margin += CUBIC_REACH + math.ceil(float(np.abs(coordinates).max()) - (side - 1) / 2)
        resized = side + 2 * margin
        # Larger or smaller by an even number of px, so that all centres coincide.
        rows, columns = (resized + 2 * round((scale - 1) * resized / 2) for scale in warp.scale)
        grid = None
        if coordinates is not None:
            grid = torch.from_numpy(coordinates[::-1] / np.float32(resized / 2))
            grid = grid.permute(1, 2, 0)[None]
        return cls(side, warp.shift, (rows, columns), resized, grid, warp.view)

    def around(self, y: int, x: int) -> Box:
        """Return the window for a sample around the pixel (y, x) of the field.

        The centre of a sample with an even side lies half a pixel before that pixel's.
        """
        y0, x0 = (
            at + by - length // 2
            for at, by, length in zip((y, x), self.shift, self.window, strict=True)
        )
        return Box(y0, x0, y0 + self.window[0], x0 + self.window[1])

    def image(self, window: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the sample's image, interpolated cubically; without a warp, as it is.

        It is resized in 8 bits, as slides are before they are segmented.

        Args:
            window: (rows, columns, 3) image of the window.

        Returns:
            (3, side, side), 0 to 1.
        """
        planes = self._warp(torch.from_numpy(window).permute(2, 0, 1), "bicubic")
        image: NDArray[np.float32] = planes.float().numpy()
        image /= np.float32(255)
        return image if self.grid is None else np.clip(image, 0, 1, out=image)

    def labels(self, window: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the sample's labels (side, side), those of the nearest pixels.

        Without a warp they may share the window's memory.

        Args:
            window: (rows, columns) labels of the window.
        """
        (plane,) = self._warp(torch.from_numpy(window)[None], "nearest")
        labels: NDArray[np.uint8] = plane.byte().numpy()
        return labels

    def weights(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the sample's weights (side, side), interpolated linearly.

        Args:
            window: (rows, columns) weights of the window.
        """
        (plane,) = self._warp(torch.from_numpy(window)[None], "bilinear")
        weights: NDArray[np.float32] = plane.numpy()
        return weights

    def _warp(self, planes: torch.Tensor, mode: Interpolation) -> torch.Tensor:
        """Return the sample's planes (c, side, side) of the window's (c, rows, columns)."""
        # At coordinates, labels and weights are taken from the window itself: it has the extent of
        # the resized square, and they need no filter.
        if self.window != (self.resized, self.resized) and (mode == "bicubic" or self.grid is None):
            planes = F.interpolate(
                planes[None],
                (self.resized, self.resized),
                mode="nearest-exact" if mode == "nearest" else mode,
                antialias=mode == "bicubic",
            )[0]
        if self.grid is None:
            planes = middle(planes, self.side)
        else:
            planes = F.grid_sample(
                planes[None].float(),
                self.grid,
                mode=mode,
                padding_mode="border",
                align_corners=False,
            )[0]
        return self.view.turn(planes).contiguous()


def middle(planes: Planes, side: int) -> Planes:
    """Return the `side` x `side` px in the middle of squares (…, h, w)."""
    before = (planes.shape[-1] - side) // 2
    middle: Planes = planes[..., before : before + side, before : before + side]
    return middle

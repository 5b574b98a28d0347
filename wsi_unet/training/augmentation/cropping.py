"""Cutting samples from their sources: windows of whole pixels, resized, turned, bent and flipped.

A sample is a square around a centre. Its image, its labels and its weights are cut by one `Cut`, so
what belongs together stays together. Resizing comes first, because that is quick, and because what
is shrunk needs a filter that fits the factor, which the interpolation at coordinates hasn't.
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
"""Px around a position that cubic interpolation looks at."""

Interpolation = Literal["bicubic", "bilinear", "nearest"]

Planes = TypeVar("Planes", NDArray[np.uint8], NDArray[np.float32], torch.Tensor)


@dataclass(frozen=True, eq=False)
class Cut:
    """How one sample is cut.

    Attributes:
        side: of the sample, px.
        shift: (y, x) of the window's centre from the sample's, whole px of the source.
        window: (rows, columns) of the source that are needed, px.
        resized: side of the square that the window is made, px.
        grid: (1, side, side, 2), the (x, y) of that square, from −1 to 1, that each pixel shows;
            None: those in its middle.
        view: how it is flipped in the end.
    """

    side: int
    shift: tuple[int, int]
    window: Shape
    resized: int
    grid: torch.Tensor | None
    view: View

    @classmethod
    def of(cls, warp: Warp, side: int) -> Cut:
        """Return how a sample of `side` x `side` px is cut.

        The window is of whole pixels around the sample's centre, so the scale is the nearest one
        for which there is such a window; the largest difference is 1 px over the window.
        """
        margin = 0  # what is looked at around the sample, px of the resized square
        if warp.scale != (1.0, 1.0):
            margin += math.ceil(CUBIC_REACH / min(1.0, *warp.scale))
        coordinates = None
        if not warp.is_straight:
            coordinates = warp.turned_and_bent(side)
            margin += CUBIC_REACH + math.ceil(float(np.abs(coordinates).max()) - (side - 1) / 2)
        resized = side + 2 * margin
        # Longer or shorter by an even number of px, so that all centres coincide.
        rows, columns = (resized + 2 * round((scale - 1) * resized / 2) for scale in warp.scale)
        grid = None
        if coordinates is not None:
            grid = torch.from_numpy(coordinates[::-1] / np.float32(resized / 2))
            grid = grid.permute(1, 2, 0)[None]
        return cls(side, warp.shift, (rows, columns), resized, grid, warp.view)

    def around(self, y: int, x: int) -> Box:
        """Return the window of the source for a sample around the pixel (y, x).

        A sample of an even side has its centre half a pixel before.
        """
        y0, x0 = (
            at + by - length // 2
            for at, by, length in zip((y, x), self.shift, self.window, strict=True)
        )
        return Box(y0, x0, y0 + self.window[0], x0 + self.window[1])

    def image(self, window: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the sample's image, interpolated cubically; where nothing is warped, as it is.

        It is resized in 8 bits, as slides are before they are segmented.

        Args:
            window: (rows, columns, 3), what lies there.

        Returns:
            (3, side, side), 0 to 1.
        """
        shown = self._shown(torch.from_numpy(window).permute(2, 0, 1), "bicubic")
        image: NDArray[np.float32] = shown.float().numpy()
        image /= np.float32(255)
        return image if self.grid is None else np.clip(image, 0, 1, out=image)

    def labels(self, window: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the sample's labels (side, side), of the nearest pixels of (rows, columns).

        What isn't warped may be the window itself, not a copy.
        """
        labels: NDArray[np.uint8] = (
            self._shown(torch.from_numpy(window)[None], "nearest")[0].byte().numpy()
        )
        return labels

    def weights(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the sample's weights (side, side), interpolated linearly, of (rows, columns)."""
        weights: NDArray[np.float32] = self._shown(torch.from_numpy(window)[None], "bilinear")[
            0
        ].numpy()
        return weights

    def _shown(self, planes: torch.Tensor, mode: Interpolation) -> torch.Tensor:
        """Return what planes (c, rows, columns) look like in the sample, (c, side, side)."""
        # At coordinates, labels and weights are taken from the window itself: it has the extent of
        # the square, and they need no filter.
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

"""Doubling a feature map by interpolation, whole or piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wsi_unet.geometry import Shape


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies in a larger one.

    Attributes:
        origin: (row, column) of its first pixel, px.
        shape: (rows, columns) of the larger one, px.
    """

    origin: Shape
    shape: Shape

    def at_level(self, poolings: int) -> Placement:
        """Return the placement of its feature map after this many 2×2 poolings."""
        (y, x), (rows, columns) = self.origin, self.shape
        return Placement((y >> poolings, x >> poolings), (rows >> poolings, columns >> poolings))


def interpolate(x: Tensor, align_corners: bool, placement: Placement | None) -> Tensor:
    """Return a map with twice the rows and columns, bilinearly interpolated.

    With aligned corners, output row i of 2n lies at row i·(n − 1)/(2n − 1) of the n input rows:
    it depends on n. So a piece of a map is interpolated at its position in the whole map. The
    piece's outermost rows and columns are wrong then: they need the neighbouring pieces.

    Args:
        x: (batch, channels, rows, columns).
        align_corners: whether the centres of the corner pixels are mapped onto each other (True)
            or the corners of the maps (False).
        placement: where `x` lies in the whole map; None: it is the whole.
    """
    if placement is None or not align_corners:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=align_corners)
    for axis in (2, 3):
        x = _double(x, axis, placement.origin[axis - 2], placement.shape[axis - 2])
    return x


def _double(x: Tensor, axis: int, first: int, whole: int) -> Tensor:
    """Double one axis of a piece that begins at index `first` of an axis of `whole` indices."""
    count = x.shape[axis]
    # In float64 on the CPU: at row 50,000 float32 would know the position to 0.004 only.
    position = torch.arange(2 * first, 2 * (first + count), dtype=torch.float64)
    position *= (whole - 1) / (2 * whole - 1)
    lower = position.floor().clamp(0, max(0, whole - 2))
    shape = [1, 1, 1, 1]
    shape[axis] = 2 * count
    weight = (position - lower).reshape(shape).to(device=x.device, dtype=x.dtype)
    before = (lower.long() - first).clamp(0, count - 1)
    after = (lower.long() + 1 - first).clamp(0, count - 1)
    left, right = (x.index_select(axis, index.to(x.device)) for index in (before, after))
    return torch.lerp(left, right, weight)

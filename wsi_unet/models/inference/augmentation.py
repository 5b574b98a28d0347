"""Test-time augmentation: views of a window, flipped and rotated, are predicted and turned back.

The pooling grid of a flipped window starts where the window ended. Windows end whole periods (plus
what a valid network shrinks) after multiples of the period, so the flipped windows share one grid
over the whole slide too; `widen_for_views` returns the context that cores need on both grids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wsi_unet.geometry import Border, Box, Shape, round_up

if TYPE_CHECKING:
    from torch import Tensor

Tta = Literal["none", "flips", "d4"]
"""Which views are averaged: the window alone, its 4 flips, or all 8 flips and rotations."""


@dataclass(frozen=True, slots=True)
class View:
    """One view of an image: flipped, then transposed.

    Attributes:
        rows: whether the rows are in reverse order.
        columns: whether the columns are in reverse order.
        transposed: whether rows become columns.
    """

    rows: bool = False
    columns: bool = False
    transposed: bool = False

    @property
    def _axes(self) -> list[int]:
        return [axis for axis, flipped in ((-2, self.rows), (-1, self.columns)) if flipped]

    def turn(self, image: Tensor) -> Tensor:
        """Return this view of an image (…, rows, columns)."""
        flipped = image.flip(self._axes) if self._axes else image
        return flipped.transpose(-1, -2) if self.transposed else flipped

    def turn_back(self, image: Tensor) -> Tensor:
        """Return what was computed of this view, (…, rows, columns), as it lies in the image."""
        upright = image.transpose(-1, -2) if self.transposed else image
        return upright.flip(self._axes) if self._axes else upright

    def turn_window(self, window: Box, whole: Shape) -> tuple[Shape, Shape]:
        """Return the origin of the turned window in the turned raster, and that raster's shape.

        Args:
            window: px of the raster.
            whole: (rows, columns) of the whole raster, px.
        """
        y = whole[0] - window.y1 if self.rows else window.y0
        x = whole[1] - window.x1 if self.columns else window.x0
        if self.transposed:
            return (x, y), (whole[1], whole[0])
        return (y, x), whole


_FLIPS = (View(), View(rows=True), View(columns=True), View(rows=True, columns=True))

VIEWS: dict[Tta, tuple[View, ...]] = {
    "none": _FLIPS[:1],
    "flips": _FLIPS,
    "d4": (*_FLIPS, *(View(view.rows, view.columns, transposed=True) for view in _FLIPS)),
}
"""The views of each kind, the unchanged image first."""


def widen_for_views(border: Border) -> Border:
    """Return the context that a core needs so that all views of its window can be predicted.

    For a network that keeps its input's size, this is the larger context on all sides. Windows
    that would be cut at the slide's edge, which need not be a multiple of the period, are clipped,
    so that the pooling grid of flipped windows is the same everywhere. For a network that loses
    `shrink` px per side, a core that starts on the grid of its window starts `phase` px after the
    grid of the flipped one: it lies in an aligned core that starts `phase` px earlier and ends
    less than a period later.

    Args:
        border: the network's border for windows of any size.
    """
    period = border.period
    if not border.shrink:
        context = round_up(max(border.before, border.after), period)
        edge = "clip" if border.edge == "cut" else border.edge
        return Border(context, context, 0, period, edge)
    phase = (border.after - border.shrink) % period
    rest = -phase % period
    after = border.after + round_up(max(0, border.before + phase - border.after), period)
    before = border.before + round_up(max(0, border.after + rest - border.before), period)
    return Border(before, after, border.shrink, period, border.edge)

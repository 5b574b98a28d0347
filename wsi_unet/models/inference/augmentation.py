"""Test-time augmentation: the same window flipped and rotated, each view predicted and turned back.

A flipped window begins where the window ended, and with it the pooling grid. Windows end whole
periods (and what a valid network shrinks) after multiples of the period, so this too is one grid
for the whole slide; `widen_for_views` gives the context that cores need on both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wsi_unet.geometry import Border, Box, Shape, round_up

if TYPE_CHECKING:
    from torch import Tensor

Tta = Literal["none", "flips", "d4"]
"""Which views are averaged: one, the 4 flips, or all 8 flips and rotations."""


@dataclass(frozen=True, slots=True)
class View:
    """One way to look at an image: flipped, then transposed.

    Attributes:
        rows: whether rows are in reverse order.
        columns: whether columns are.
        transposed: whether rows become columns.
    """

    rows: bool = False
    columns: bool = False
    transposed: bool = False

    @property
    def _axes(self) -> list[int]:
        return [axis for axis, flipped in ((-2, self.rows), (-1, self.columns)) if flipped]

    def turn(self, image: Tensor) -> Tensor:
        """Return (…, rows, columns) as this view shows it."""
        flipped = image.flip(self._axes) if self._axes else image
        return flipped.transpose(-1, -2) if self.transposed else flipped

    def turn_back(self, image: Tensor) -> Tensor:
        """Return what was computed of a view as it lies in the image, (…, rows, columns)."""
        upright = image.transpose(-1, -2) if self.transposed else image
        return upright.flip(self._axes) if self._axes else upright

    def turn_window(self, window: Box, whole: Shape) -> tuple[Shape, Shape]:
        """Return where the turned window lies in the turned whole: its origin, the whole's shape.

        Args:
            window: px of the whole.
            whole: (rows, columns) of the whole, px.
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
"""The views of each kind; the image as it is comes first."""


def widen_for_views(border: Border) -> Border:
    """Return the context that a core needs in a window that is looked at from all sides.

    Where nothing is lost of the input, the larger context on all sides; and windows that would be
    cut at the slide's edge, which need not be a multiple of the period, are clipped, so that the
    pooling grid of a flipped one is the same everywhere. Where `shrink` px are lost, a core that
    starts on the grid of a window starts `phase` px beyond it in the flipped one: it lies in an
    aligned core that starts so much earlier and ends less than a period later.

    Args:
        border: the network's, for any window size.
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

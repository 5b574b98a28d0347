"""Which images an unknown network takes, found out by trying."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_unet.errors import ModelError, first_line
from wsi_unet.geometry import round_up
from wsi_unet.models.exported.loading import ImageError
from wsi_unet.models.probing.probed_network import ProbedNetwork, measure_range

LARGEST_PERIOD = 64
FIRST_SIDE = 256

USUAL_SIDES = (512, 128, 224, 320, 384, 480, 572, 640, 768, 1024)
"""Only sides of networks that take no other, px."""


@dataclass(frozen=True)
class AcceptedSides:
    """Images that a network takes.

    Attributes:
        side: of one of them, px; others are larger or smaller by a multiple of 64.
        shrink: what the output lacks on each side, px.
        only: whether the network takes no other.
    """

    side: int
    shrink: int
    only: bool

    def at_least(self, side: int) -> int:
        """Return the smallest of the sides that is no smaller; or the only one."""
        return self.side if self.only else self.side + round_up(side - self.side, LARGEST_PERIOD)


def find_sides(subject: ProbedNetwork, only: int | None = None) -> AcceptedSides:
    """Return sides that a network takes.

    Raises:
        ModelError: if there are none, or its output is no map of the image.
    """
    if only is not None:
        return _only(only, _shrink(subject, only, needed=True) or 0)
    first = _shrink(subject, FIRST_SIDE)
    if first == 0:
        return _with_larger(subject, FIRST_SIDE, first)
    # Valid convolutions fit some sides better than others.
    tried = range(FIRST_SIDE, FIRST_SIDE + LARGEST_PERIOD, 2)
    shrinks = {side: shrink for side in tried if (shrink := _shrink(subject, side)) is not None}
    if shrinks:
        side = min(shrinks, key=lambda one: shrinks[one])
        return _with_larger(subject, side, shrinks[side])
    for side in USUAL_SIDES:
        shrink = _shrink(subject, side)
        if shrink is not None:
            return _with_larger(subject, side, shrink)
    _shrink(subject, FIRST_SIDE, needed=True)
    raise AssertionError("a side that wasn't taken before")


def _with_larger(subject: ProbedNetwork, side: int, shrink: int) -> AcceptedSides:
    """Return a side, told whether there are more; what those lack must be the same."""
    larger = _shrink(subject, side + LARGEST_PERIOD)
    if larger is None:
        return _only(side, shrink)
    if larger != shrink:
        raise _coarse(side + LARGEST_PERIOD, side + LARGEST_PERIOD - 2 * larger)
    return AcceptedSides(side, shrink, only=False)


def _only(side: int, shrink: int) -> AcceptedSides:
    """Return the only side: with none to compare, half of it is taken for half the resolution."""
    rows = side - 2 * shrink
    if abs(2 * rows - side) <= 1:
        raise _coarse(side, rows)
    return AcceptedSides(side, shrink, only=True)


def _coarse(side: int, rows: int, columns: int | None = None) -> ModelError:
    return ModelError(
        f"the network makes {rows if columns is None else columns}×{rows} px of {side}×{side} px; "
        "only networks that label every pixel are run"
    )


def _shrink(subject: ProbedNetwork, side: int, *, needed: bool = False) -> int | None:
    """Return what the output lacks per side; None where the network doesn't take the image.

    Raises:
        ModelError: if the output has another resolution than the image, or isn't finite; where
            the side is needed, also if it isn't taken.
    """
    try:
        output = subject.run(subject.image(side))
    except Exception as error:  # of whatever type: other people's networks
        if isinstance(error, ModelError) and not isinstance(error, ImageError):
            raise
        if not needed:
            return None
        reason = first_line(error)
        raise ModelError(
            f"the network doesn't take images of {subject.in_channels}×{side}×{side}: {reason}"
        ) from error
    rows, columns = output.shape[1:]
    if rows != columns or rows > side or 2 * rows <= side // 2:
        raise _coarse(side, rows, columns)
    if not bool(output.isfinite().all()) or not float(measure_range(output)):
        raise ModelError("the network's output for noise is constant or not finite")
    return None if (side - rows) % 2 else (side - rows) // 2

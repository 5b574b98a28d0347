"""Finding the image sides that an unknown network takes, by trying."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_unet.errors import ModelError, first_line
from wsi_unet.geometry import round_up
from wsi_unet.models.exported.loading import ImageError
from wsi_unet.models.probing.probed_network import ProbedNetwork, measure_range

LARGEST_PERIOD = 64
FIRST_SIDE = 256

USUAL_SIDES = (512, 128, 224, 320, 384, 480, 572, 640, 768, 1024)
"""Sides that networks with only one side often have, px."""


@dataclass(frozen=True)
class AcceptedSides:
    """Sides of the square images that a network takes.

    Attributes:
        side: one of them, px; the others differ from it by a multiple of 64.
        shrink: how much smaller the output is on each side, px.
        only: whether the network takes no other side.
    """

    side: int
    shrink: int
    only: bool

    def round_up(self, side: int) -> int:
        """Return the smallest accepted side that is at least `side`, or the only one."""
        return self.side if self.only else self.side + round_up(side - self.side, LARGEST_PERIOD)


def find_sides(subject: ProbedNetwork, only: int | None = None) -> AcceptedSides:
    """Return the sides that a network takes.

    Args:
        subject: the network.
        only: the only side that it takes, px; None if that isn't known.

    Raises:
        ModelError: the network takes no side that was tried, or its output isn't a class map.
    """
    if only is not None:
        return _check_only(only, _measure_shrink(subject, only, needed=True) or 0)
    first = _measure_shrink(subject, FIRST_SIDE)
    if first == 0:
        return _try_larger(subject, FIRST_SIDE, first)
    # Valid convolutions fit some sides better than others.
    tried = range(FIRST_SIDE, FIRST_SIDE + LARGEST_PERIOD, 2)
    shrinks = {
        side: shrink for side in tried if (shrink := _measure_shrink(subject, side)) is not None
    }
    if shrinks:
        side = min(shrinks, key=shrinks.__getitem__)
        return _try_larger(subject, side, shrinks[side])
    for side in USUAL_SIDES:
        shrink = _measure_shrink(subject, side)
        if shrink is not None:
            return _try_larger(subject, side, shrink)
    _measure_shrink(subject, FIRST_SIDE, needed=True)
    raise AssertionError("the network takes a side now that it refused before")


def _try_larger(subject: ProbedNetwork, side: int, shrink: int) -> AcceptedSides:
    """Return accepted sides after trying a larger one, whose output must shrink as much."""
    larger = _measure_shrink(subject, side + LARGEST_PERIOD)
    if larger is None:
        return _check_only(side, shrink)
    if larger != shrink:
        raise _wrong_resolution(side + LARGEST_PERIOD, side + LARGEST_PERIOD - 2 * larger)
    return AcceptedSides(side, shrink, only=False)


def _check_only(side: int, shrink: int) -> AcceptedSides:
    """Return an only side, refusing an output of half the resolution.

    There is no other side to compare with, so an output of half the side counts as that.
    """
    rows = side - 2 * shrink
    if abs(2 * rows - side) <= 1:
        raise _wrong_resolution(side, rows)
    return AcceptedSides(side, shrink, only=True)


def _wrong_resolution(side: int, rows: int, columns: int | None = None) -> ModelError:
    return ModelError(
        f"the network makes {rows if columns is None else columns}×{rows} px of {side}×{side} px; "
        "only networks that label every pixel can be run"
    )


def _measure_shrink(subject: ProbedNetwork, side: int, *, needed: bool = False) -> int | None:
    """Return how much smaller the output is per side; None if the network refuses the image.

    Args:
        subject: the network.
        side: side of the image, px.
        needed: whether refusing the image is an error.

    Raises:
        ModelError: the output has another resolution than the image, or is constant or not
            finite; or the network refuses a needed image.
    """
    try:
        output = subject.run(subject.image(side))
    except Exception as error:  # of any type: other people's networks
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
        raise _wrong_resolution(side, rows, columns)
    if not bool(output.isfinite().all()) or not float(measure_range(output)):
        raise ModelError("the network's output for noise is constant or not finite")
    return None if (side - rows) % 2 else (side - rows) // 2

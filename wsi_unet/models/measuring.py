"""What an unknown network is, found out by running it: sides, period, border, exactness.

Four experiments, because none is enough alone:

- sides are tried until the network takes one and shrinks it least;
- a strip of the image is spoilt (by NaN, or by enormous numbers where those get lost): how far the
  damage reaches is the border, and a network without any is global;
- the image is shifted: the smallest shift after which the output is the same, shifted, is the
  period. A network that has none depends on where in the image something lies;
- the image is cut: what the rest of it changes in the middle shows a dependence on its size, as
  interpolation with aligned corners has, which no spoilt pixel tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wsi_unet.errors import ModelError
from wsi_unet.geometry import round_up
from wsi_unet.models.subject import Subject, arithmetic_of, spread, structure_of

LARGEST_PERIOD = 64
FIRST_SIDE = 256
REACH_SIDES = (FIRST_SIDE, 448, 704)
"""Images on which a border is looked for, one after the other, px."""

USUAL_SIDES = (512, 128, 224, 320, 384, 480, 572, 640, 768, 1024)
"""Only sides of networks that take no other, px."""

ROOM = 32
"""Rows and columns that are compared at least, px."""


@dataclass(frozen=True)
class Sides:
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


@dataclass(frozen=True)
class Measured:
    """What a network was seen to be.

    Attributes:
        sides: images that it takes.
        classes: channels of its output.
        period: where its cores may start, px; where `sized`, what comes closest.
        before: context above and left of a core that windows need, px; where the damage is
            everywhere, a quarter of the image.
        after: the same below and right of it.
        local: whether there is such a border.
        sized: whether the result depends on the image's size, or on the place in it.
        deviation: largest difference, relative to the output's range, that a shift by the period
            or a cut makes in what has all its context. Rounding apart, it is 0 unless `sized`.
        head: what the output already looks as if it had been through; None for logits.
    """

    sides: Sides
    classes: int
    period: int
    before: int
    after: int
    local: bool
    sized: bool
    deviation: float
    head: Literal["softmax", "sigmoid"] | None


def measure(network: nn.Module, in_channels: int, *, input_side: int | None = None) -> Measured:
    """Find out what a network is.

    Args:
        network: in evaluation mode, float32, on the CPU; it is left as it was.
        in_channels: channels of its input.
        input_side: the only side of its input where that is known, px.

    Raises:
        ModelError: if it takes no image that was tried, its output isn't the image's size (less a
            margin), or is constant or not finite.
    """
    subject = structure_of(network, in_channels)
    sides = find_sides(subject, input_side)
    reach = _find_reach(subject, sides)
    local = reach is not None
    margin = max(reach.before, reach.after) if reach is not None else sides.side // 4
    shifts = Shifts(subject, sides, margin + LARGEST_PERIOD, margin + LARGEST_PERIOD)
    period, deviation = shifts.period()
    before, after = _windows(reach, sides, period)
    sized = deviation > subject.tolerance
    if not sized and local:
        # Found in float32, confirmed in float64 where there is that, with no px to spare.
        precise = arithmetic_of(network, in_channels, sides.side)
        deviation = Shifts(precise, sides, before, after).deviation(period)
        deviation = max(deviation, two_sizes(precise, sides, before, after))
        sized = deviation > precise.tolerance
    return Measured(
        sides=sides,
        classes=shifts.output.shape[0],
        period=period,
        before=before,
        after=after,
        local=local,
        sized=sized or not local,
        deviation=deviation,
        head=_head(subject, sides),
    )


def find_sides(subject: Subject, only: int | None = None) -> Sides:
    """Return sides that a network takes.

    Raises:
        ModelError: if there are none, or its output is no map of the image.
    """
    if only is not None:
        return Sides(only, _shrink(subject, only, needed=True) or 0, only=True)
    first = _shrink(subject, FIRST_SIDE)
    if first != 0:  # valid convolutions fit some sides better than others
        tried = range(FIRST_SIDE, FIRST_SIDE + LARGEST_PERIOD, 2)
        shrinks = {side: shrink for side in tried if (shrink := _shrink(subject, side)) is not None}
        if not shrinks:
            return _only_side(subject)
        side = min(shrinks, key=lambda one: shrinks[one])
        return Sides(side, shrinks[side], only=_shrink(subject, side + LARGEST_PERIOD) is None)
    larger = _shrink(subject, FIRST_SIDE + LARGEST_PERIOD)
    return Sides(FIRST_SIDE, first, only=larger is None)


def _only_side(subject: Subject) -> Sides:
    for side in USUAL_SIDES:
        shrink = _shrink(subject, side)
        if shrink is not None:
            return Sides(side, shrink, only=_shrink(subject, side + LARGEST_PERIOD) is None)
    _shrink(subject, FIRST_SIDE, needed=True)
    raise AssertionError("a side that wasn't taken before")


def _shrink(subject: Subject, side: int, *, needed: bool = False) -> int | None:
    """Return what the output lacks per side; None where the network doesn't take the image.

    Raises:
        ModelError: if the output has another resolution than the image, or isn't finite; where
            the side is needed, also if it isn't taken.
    """
    try:
        output = subject.run(subject.image(side))
    except ModelError:
        raise
    except Exception as error:  # of whatever type: other people's networks
        if not needed:
            return None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the network doesn't take images of {subject.in_channels}×{side}×{side}: {reason}"
        ) from error
    rows, columns = output.shape[1:]
    if rows != columns or rows > side or 2 * rows <= side // 2:
        raise ModelError(
            f"the network makes {columns}×{rows} px of {side}×{side} px; only networks that label "
            "every pixel are run"
        )
    if not bool(output.isfinite().all()) or not float(spread(output)):
        raise ModelError("the network's output for noise is constant or not finite")
    return None if (side - rows) % 2 else (side - rows) // 2


@dataclass(frozen=True)
class Reach:
    """How far a spoilt strip at an edge of the image reaches.

    Attributes:
        side: of the image, px.
        first: first row and column of the output that the strip above and left doesn't change.
        last: first row and column that the strip below and right changes.
        before: px between that strip and what is unchanged, shrinkage included.
        after: the same at the other end.
    """

    side: int
    first: int
    last: int
    before: int
    after: int


def _find_reach(subject: Subject, sides: Sides) -> Reach | None:
    """Return it for the smallest image that it ends in; None if it doesn't end in any."""
    for side in dict.fromkeys(sides.at_least(side) for side in REACH_SIDES):
        reach = _reach(subject, side, sides.shrink)
        if reach is not None:
            return reach
    return None


def _reach(subject: Subject, side: int, shrink: int) -> Reach | None:
    strip = LARGEST_PERIOD
    image = subject.image(side)
    clean = subject.run(image)
    spoil = torch.zeros(side, side, dtype=torch.bool)
    spoil[side - strip :] = spoil[:, side - strip :] = True
    last = _unchanged(subject.changed(image, clean, spoil))
    spoil = spoil.flip(0, 1)
    first = _unchanged(subject.changed(image, clean, spoil).flip(0, 1))
    if not last or not first:
        return None
    first = clean.shape[1] - first
    return Reach(side, first, last, first + shrink - strip, side - strip - last - shrink)


def _unchanged(changed: Tensor) -> int:
    """Return how many rows and columns from the top left are unchanged.

    What is changed lies below and right: all but a square at the top left. Looked at are the rows
    in the first columns, and the columns in the first rows; in each many pixels, since one alone
    may have been spared by chance.
    """
    side = changed.shape[0]
    few = max(1, side // 8)
    if bool(changed[:few, :few].any()):
        few = 1
    rows, columns = changed[:, :few].any(1), changed[:few].any(0)
    ends = [int(one.nonzero()[0]) if bool(one.any()) else side for one in (rows, columns)]
    return min(ends)


class Shifts:
    """Compares outputs of an image and of the same image shifted.

    Args:
        subject: the network.
        sides: images that it takes.
        before: context above and left of what is compared, px of the input.
        after: the same below and right of it. Of both there is less where the only image that
            the network takes has no room for them.
    """

    def __init__(self, subject: Subject, sides: Sides, before: int, after: int) -> None:
        self._subject = subject
        self._side = sides.at_least(before + LARGEST_PERIOD + ROOM + after)
        self._image = subject.image(self._side + LARGEST_PERIOD)
        self.output = subject.run(self._image[:, :, : self._side, : self._side])
        self._spread = float(spread(self.output))
        # In px of the output.
        spare = max(0, self.output.shape[1] - LARGEST_PERIOD - ROOM)
        self._before = min(before - sides.shrink, spare // 2)
        self._after = min(after - sides.shrink, spare // 2)

    def period(self) -> tuple[int, float]:
        """Return the smallest period, px, and its deviation; of several bad ones a good one."""
        powers = [2**power for power in range(LARGEST_PERIOD.bit_length())]
        found = {powers[-1]: self.deviation(powers[-1])}
        if found[powers[-1]] <= self._subject.tolerance:
            low, high = 0, len(powers) - 1
            while low < high:
                middle = (low + high) // 2
                found[powers[middle]] = self.deviation(powers[middle])
                exact = found[powers[middle]] <= self._subject.tolerance
                low, high = (low, middle) if exact else (middle + 1, high)
            return powers[high], found[powers[high]]
        found |= {power: self.deviation(power) for power in powers[:-1]}
        least = min(found.values())
        period = min(power for power, deviation in found.items() if deviation <= 2 * least)
        return period, found[period]

    def deviation(self, shift: int) -> float:
        """Return what a shift by so many px, down and right, changes; and each way alone."""
        return max(self._shifted(shift, shift), self._shifted(shift, 0))

    def _shifted(self, down: int, right: int) -> float:
        side = self._side
        part = self._image[:, :, down : down + side, right : right + side]
        moved = self._subject.run(part)
        end, first = moved.shape[1] - self._after, self._before
        ours = self.output[:, first + down : end, first + right : end]
        theirs = moved[:, first : end - down, first : end - right]
        return float((ours - theirs).abs().max()) / self._spread


def two_sizes(subject: Subject, sides: Sides, before: int, after: int) -> float:
    """Return what cutting the image by a strip changes in what has all its context."""
    if sides.only:
        return 0.0
    side = sides.at_least(before + ROOM + after)
    image = subject.image(side + LARGEST_PERIOD)
    large, small = subject.run(image), subject.run(image[:, :, :side, :side])
    kept = small.shape[1] - (after - sides.shrink)
    difference = (large[:, :kept, :kept] - small[:, :kept, :kept]).abs().max()
    return float(difference / spread(large))


def _windows(reach: Reach | None, sides: Sides, period: int) -> tuple[int, int]:
    """Return the context before and after cores that legal windows have, px.

    A core lies `shrink` px and whole periods behind its window's start, which puts it on the
    pooling grid, and windows are as long as legal sides.
    """
    if reach is None:
        quarter = round_up(sides.side // 4, period)
        return sides.shrink + quarter, (sides.side - sides.shrink) % period + quarter
    before = sides.shrink + round_up(reach.first, period) - LARGEST_PERIOD
    after = reach.side - LARGEST_PERIOD - sides.shrink - reach.last // period * period
    # Nothing before or after: the rounding is all there is.
    return max(before, sides.shrink), max(after, (sides.side - sides.shrink) % period)


def _head(subject: Subject, sides: Sides) -> Literal["softmax", "sigmoid"] | None:
    """Tell logits from probabilities, by outputs for weak and for strong noise."""
    image = subject.image(sides.side)
    outputs = [subject.run(image * factor) for factor in (1, 30)]
    if any(float(output.min()) < 0 or float(output.max()) > 1 for output in outputs):
        return None
    return "softmax" if _sums_to_one(outputs) else "sigmoid"


def _sums_to_one(outputs: Iterable[Tensor]) -> bool:
    return all(
        output.shape[0] > 1 and bool(((output.sum(0) - 1).abs() < 1e-3).all()) for output in outputs
    )

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

from wsi_unet.geometry import round_up
from wsi_unet.models.probing.accepted_sides import (
    FIRST_SIDE,
    LARGEST_PERIOD,
    AcceptedSides,
    find_sides,
)
from wsi_unet.models.probing.probed_network import (
    ProbedNetwork,
    measure_range,
    wrap_in_float64,
    wrap_network,
)
from wsi_unet.models.probing.shifting import PERIODS, ShiftComparison, choose_best, compare_sizes

REACH_SIDES = (FIRST_SIDE, 448, 704)
"""Images on which a border is looked for, one after the other, px."""


@dataclass(frozen=True)
class NetworkProperties:
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

    sides: AcceptedSides
    classes: int
    period: int
    before: int
    after: int
    local: bool
    sized: bool
    deviation: float
    head: Literal["softmax", "sigmoid"] | None


def probe_network(
    network: nn.Module, in_channels: int, *, input_side: int | None = None
) -> NetworkProperties:
    """Find out what a network is.

    Args:
        network: in evaluation mode, float32, on the CPU; it is left as it was.
        in_channels: channels of its input.
        input_side: the only side of its input where that is known, px.

    Raises:
        ModelError: if it takes no image that was tried, its output isn't the image's size (less a
            margin), or is constant or not finite.
    """
    subject = wrap_network(network, in_channels)
    sides = find_sides(subject, input_side)
    reach = _find_reach(subject, sides)
    local = reach is not None
    margin = max(reach.before, reach.after) if reach is not None else sides.side // 4
    shifts = ShiftComparison(subject, sides, margin + LARGEST_PERIOD, margin + LARGEST_PERIOD)
    period, deviation = shifts.period()
    if local and deviation <= subject.tolerance:
        # Found in float32, confirmed in float64 where there is that, with no px to spare.
        precise = wrap_in_float64(network, in_channels, sides.side)
        period, deviation = _confirm(precise, sides, reach, period)
        sized = deviation > precise.tolerance
    else:
        sized = True
    before, after = _windows(reach, sides, period)
    return NetworkProperties(
        sides=sides,
        classes=shifts.output.shape[0],
        period=period,
        before=before,
        after=after,
        local=local,
        sized=sized,
        deviation=deviation,
        head=detect_head(subject, sides.side),
    )


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


def _find_reach(subject: ProbedNetwork, sides: AcceptedSides) -> Reach | None:
    """Return it for the smallest image that it ends in; None if it doesn't end in any."""
    for side in dict.fromkeys(sides.at_least(side) for side in REACH_SIDES):
        reach = _reach(subject, side, sides.shrink)
        if reach is not None:
            return reach
    return None


def _reach(subject: ProbedNetwork, side: int, shrink: int) -> Reach | None:
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


def _confirm(
    subject: ProbedNetwork, sides: AcceptedSides, reach: Reach | None, period: int
) -> tuple[int, float]:
    """Return the smallest period from a first one on that windows may have, and its deviation."""
    found: dict[int, float] = {}
    for longer in (one for one in PERIODS if one >= period):
        before, after = _windows(reach, sides, longer)
        found[longer] = compare_sizes(subject, sides, before, after, longer)
        if found[longer] <= subject.tolerance:
            shifted = ShiftComparison(subject, sides, before, after).deviation(longer)
            found[longer] = max(found[longer], shifted)
        if found[longer] <= subject.tolerance:
            return longer, found[longer]
    best = choose_best(found)
    return best, found[best]


def _windows(reach: Reach | None, sides: AcceptedSides, period: int) -> tuple[int, int]:
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


def detect_head(subject: ProbedNetwork, side: int) -> Literal["softmax", "sigmoid"] | None:
    """Tell logits (None) from probabilities, by outputs for weak and for strong noise.

    Args:
        subject: the network.
        side: of an image that it takes, px.
    """
    image = subject.image(side)
    outputs = [subject.run(image * factor) for factor in (1, 30)]
    if any(float(output.min()) < 0 or float(output.max()) > 1 for output in outputs):
        return None
    if not any(float(measure_range(output)) for output in outputs):
        return None  # a constant
    return "softmax" if _sums_to_one(outputs) else "sigmoid"


def _sums_to_one(outputs: Iterable[Tensor]) -> bool:
    return all(
        output.shape[0] > 1 and bool(((output.sum(0) - 1).abs() < 1e-3).all()) for output in outputs
    )

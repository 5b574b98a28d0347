"""Measuring an unknown network by running it: accepted sides, period, border, exactness.

There are four experiments, because none is enough alone:

- Image sides are tried until the network takes one and shrinks it least.
- A strip of the image is spoilt (by NaN, or by enormous numbers where NaN gets lost). How far the
  damage reaches is the border; if it reaches everywhere, the network is global.
- The image is shifted. The smallest shift that shifts the output and changes nothing else is the
  period; if there is none, the output depends on the position in the image.
- The image is cut. A change in the middle shows that the output depends on the image's size, as
  interpolation with aligned corners does, which no spoilt pixel reveals.
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

BORDER_SIDES = (FIRST_SIDE, 448, 704)
"""Sides of the images on which the border is measured, px, tried in this order."""


@dataclass(frozen=True)
class NetworkProperties:
    """The measured properties of a network.

    Attributes:
        sides: sides of the images that it takes.
        classes: channels of its output.
        period: cores may start at its multiples, px; for a network that depends on the size, the
            shift that changes about the least.
        before: context above and left of a core that windows need, px; for a global network, a
            quarter of the image.
        after: context below and right of a core, px.
        local: whether damage stays within that context.
        depends_on_size: whether the output depends on the image's size or on the position in it.
        deviation: largest change, relative to the output's range, that a shift by the period or a
            cut makes to pixels with all their context. Apart from rounding, it is 0 unless the
            output depends on the size.
        head: the function that was applied to the output, judging by its values; None for logits.
    """

    sides: AcceptedSides
    classes: int
    period: int
    before: int
    after: int
    local: bool
    depends_on_size: bool
    deviation: float
    head: Literal["softmax", "sigmoid"] | None


def probe_network(
    network: nn.Module, in_channels: int, *, input_side: int | None = None
) -> NetworkProperties:
    """Measure the properties of a network.

    Args:
        network: in evaluation mode, float32, on the CPU; it isn't changed.
        in_channels: channels of its input.
        input_side: the only side that its input may have, px; None if that isn't known.

    Raises:
        ModelError: the network takes no image that was tried, or its output doesn't have the
            image's size (less a margin), or is constant or not finite.
    """
    subject = wrap_network(network, in_channels)
    sides = find_sides(subject, input_side)
    extent = _find_damage_extent(subject, sides)
    local = extent is not None
    margin = max(extent.before, extent.after) if extent is not None else sides.side // 4
    shifts = ShiftComparison(subject, sides, margin + LARGEST_PERIOD, margin + LARGEST_PERIOD)
    period, deviation = shifts.period()
    if local and deviation <= subject.tolerance:
        # Measured in float32; confirmed in float64 if possible, with no more context than needed.
        precise = wrap_in_float64(network, in_channels, sides.side)
        period, deviation = _confirm_period(precise, sides, extent, period)
        depends_on_size = deviation > precise.tolerance
    else:
        depends_on_size = True
    before, after = _find_context(extent, sides, period)
    return NetworkProperties(
        sides=sides,
        classes=shifts.output.shape[0],
        period=period,
        before=before,
        after=after,
        local=local,
        depends_on_size=depends_on_size,
        deviation=deviation,
        head=detect_head(subject, sides.side),
    )


@dataclass(frozen=True)
class DamageExtent:
    """The extent of the damage that a spoilt strip at an edge of the image does to the output.

    Attributes:
        side: side of the image, px.
        first: first row and column of the output that a strip above and left doesn't change.
        last: first row and column of the output that a strip below and right changes.
        before: px between the strip above and left and the unchanged pixels, shrinkage included.
        after: px between the unchanged pixels and the strip below and right, shrinkage included.
    """

    side: int
    first: int
    last: int
    before: int
    after: int


def _find_damage_extent(subject: ProbedNetwork, sides: AcceptedSides) -> DamageExtent | None:
    """Return the damage in the smallest image that it doesn't fill; None if it fills all."""
    for side in dict.fromkeys(sides.round_up(side) for side in BORDER_SIDES):
        extent = _measure_damage(subject, side, sides.shrink)
        if extent is not None:
            return extent
    return None


def _measure_damage(subject: ProbedNetwork, side: int, shrink: int) -> DamageExtent | None:
    strip = LARGEST_PERIOD
    image = subject.image(side)
    clean = subject.run(image)
    spoil = torch.zeros(side, side, dtype=torch.bool)
    spoil[side - strip :] = spoil[:, side - strip :] = True
    last = _count_unchanged(subject.find_changed(image, clean, spoil))
    spoil = spoil.flip(0, 1)
    first = _count_unchanged(subject.find_changed(image, clean, spoil).flip(0, 1))
    if not last or not first:
        return None
    first = clean.shape[1] - first
    return DamageExtent(side, first, last, first + shrink - strip, side - strip - last - shrink)


def _count_unchanged(changed: Tensor) -> int:
    """Return how many rows and columns from the top left are unchanged.

    All but a square at the top left is changed. The rows are looked at in the first few columns,
    and the columns in the first few rows: in more than one, since single pixels may be spared by
    chance.
    """
    side = changed.shape[0]
    few = max(1, side // 8)
    if bool(changed[:few, :few].any()):
        few = 1
    rows, columns = changed[:, :few].any(1), changed[:few].any(0)
    ends = [int(line.nonzero()[0]) if bool(line.any()) else side for line in (rows, columns)]
    return min(ends)


def _confirm_period(
    subject: ProbedNetwork, sides: AcceptedSides, extent: DamageExtent | None, shortest: int
) -> tuple[int, float]:
    """Return the smallest period that neither shifts nor cuts contradict, and its deviation.

    Args:
        subject: the network, as precise as it can be.
        sides: sides of the images that it takes.
        extent: how far damage reaches.
        shortest: the first period to try, px.
    """
    deviations: dict[int, float] = {}
    for period in (candidate for candidate in PERIODS if candidate >= shortest):
        before, after = _find_context(extent, sides, period)
        deviation = compare_sizes(subject, sides, before, after, period)
        if deviation <= subject.tolerance:
            shifts = ShiftComparison(subject, sides, before, after)
            deviation = max(deviation, shifts.deviation(period))
        if deviation <= subject.tolerance:
            return period, deviation
        deviations[period] = deviation
    best = choose_best(deviations)
    return best, deviations[best]


def _find_context(
    extent: DamageExtent | None, sides: AcceptedSides, period: int
) -> tuple[int, int]:
    """Return the context that windows have before and after cores, px.

    A core starts `shrink` px and whole periods after its window, which puts it on the pooling
    grid, and windows have sides that the network takes.
    """
    if extent is None:
        quarter = round_up(sides.side // 4, period)
        return sides.shrink + quarter, (sides.side - sides.shrink) % period + quarter
    before = sides.shrink + round_up(extent.first, period) - LARGEST_PERIOD
    after = extent.side - LARGEST_PERIOD - sides.shrink - extent.last // period * period
    # For networks that need no context, only the rounding to the period remains.
    return max(before, sides.shrink), max(after, (sides.side - sides.shrink) % period)


def detect_head(subject: ProbedNetwork, side: int) -> Literal["softmax", "sigmoid"] | None:
    """Return the head that a network's output has been through; None for logits.

    Probabilities are recognised by the outputs for weak and for strong noise.

    Args:
        subject: the network.
        side: side of an image that it takes, px.
    """
    image = subject.image(side)
    outputs = [subject.run(image * factor) for factor in (1, 30)]
    if any(float(output.min()) < 0 or float(output.max()) > 1 for output in outputs):
        return None
    if not any(float(measure_range(output)) for output in outputs):
        return None  # a constant output tells nothing
    return "softmax" if _sums_to_one(outputs) else "sigmoid"


def _sums_to_one(outputs: Iterable[Tensor]) -> bool:
    return all(
        output.shape[0] > 1 and bool(((output.sum(0) - 1).abs() < 1e-3).all()) for output in outputs
    )

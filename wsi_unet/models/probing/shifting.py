"""Measuring how an unknown network's output changes when the image is shifted or cut."""

from __future__ import annotations

from wsi_unet.models.probing.accepted_sides import LARGEST_PERIOD, AcceptedSides
from wsi_unet.models.probing.probed_network import ProbedNetwork, measure_range

ROOM = 32
"""The fewest rows and columns that are compared, px."""

PERIODS = tuple(2**power for power in range(LARGEST_PERIOD.bit_length()))
"""Periods that are tried, px."""

ABOVE_FLOOR = 4.0
"""How much more a shift may change than a shift by the largest period does: rounding varies."""


class ShiftComparison:
    """A comparison of the outputs for an image and for the same image shifted.

    The contexts are shortened if the only image that the network takes has no room for them.

    Args:
        subject: the network.
        sides: sides of the images that it takes.
        before: context above and left of the compared pixels, px of the input.
        after: context below and right of them, px of the input.

    Attributes:
        output: the output for the image that isn't shifted, (classes, rows, columns).
    """

    def __init__(
        self, subject: ProbedNetwork, sides: AcceptedSides, before: int, after: int
    ) -> None:
        self._subject = subject
        self._side = sides.round_up(before + LARGEST_PERIOD + ROOM + after)
        self._image = subject.image(self._side + LARGEST_PERIOD)
        self.output = subject.run(self._image[:, :, : self._side, : self._side])
        self._range = float(measure_range(self.output))
        # In px of the output.
        spare = max(0, self.output.shape[1] - LARGEST_PERIOD - ROOM)
        self._before = min(before - sides.shrink, spare // 2)
        self._after = min(after - sides.shrink, spare // 2)

    def period(self) -> tuple[int, float]:
        """Return the network's period, px, and the deviation of a shift by it.

        If every shift changes the output, this is the one that `choose_best` prefers. The floor
        is what a shift by the largest period changes: a bottleneck of little weight changes less
        than the tolerance, but more than the floor.
        """
        deviations = {PERIODS[-1]: self.deviation(PERIODS[-1])}
        floor = deviations[PERIODS[-1]]
        if floor <= self._subject.tolerance:
            limit = max(ABOVE_FLOOR * floor, self._subject.rounding)
            low, high = 0, len(PERIODS) - 1
            while low < high:
                middle = (low + high) // 2
                deviations[PERIODS[middle]] = self.deviation(PERIODS[middle])
                exact = deviations[PERIODS[middle]] <= limit
                low, high = (low, middle) if exact else (middle + 1, high)
            return PERIODS[high], deviations[PERIODS[high]]
        deviations |= {period: self.deviation(period) for period in PERIODS[:-1]}
        best = choose_best(deviations)
        return best, deviations[best]

    def deviation(self, shift: int) -> float:
        """Return the largest change, relative to the output's range, of a shift by `shift` px.

        The image is shifted down, and down and right.
        """
        return max(self._compare(shift, shift), self._compare(shift, 0))

    def _compare(self, down: int, right: int) -> float:
        side = self._side
        part = self._image[:, :, down : down + side, right : right + side]
        moved = self._subject.run(part)
        end, first = moved.shape[1] - self._after, self._before
        reference = self.output[:, first + down : end, first + right : end]
        shifted = moved[:, first : end - down, first : end - right]
        return float((reference - shifted).abs().max()) / self._range


def choose_best(deviations: dict[int, float]) -> int:
    """Return the smallest period whose deviation is within a factor of 2 of the least one."""
    least = min(deviations.values())
    return min(period for period, deviation in deviations.items() if deviation <= 2 * least)


def compare_sizes(
    subject: ProbedNetwork, sides: AcceptedSides, before: int, after: int, period: int
) -> float:
    """Return the largest change that cutting the image makes to pixels with all their context.

    It is relative to the output's range. The cut image is as long as a window of an odd number of
    periods; if the network doesn't take that, infinity is returned.

    Args:
        subject: the network.
        sides: sides of the images that it takes.
        before: context above and left of the compared pixels, px of the input.
        after: context below and right of them, px of the input.
        period: the network's period, px.
    """
    if sides.only:
        return 0.0
    side = before + (ROOM // period | 1) * period + after
    image = subject.image(sides.round_up(side + period))
    large = subject.run(image)
    try:
        small = subject.run(image[:, :, :side, :side])
    except Exception:  # of any type: other people's networks
        return float("inf")
    if small.shape[1:] != (side - 2 * sides.shrink,) * 2:
        return float("inf")
    kept = small.shape[1] - (after - sides.shrink)
    difference = (large[:, :kept, :kept] - small[:, :kept, :kept]).abs().max()
    return float(difference / measure_range(large))

"""Measuring the border of a network by experiment: the oracle of the formulas."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsi_unet.geometry import round_up


@dataclass(frozen=True)
class MeasuredBorder:
    """The border of a network as measured, px of its input.

    Attributes:
        before: rows or columns above or left of an aligned core that reach it; None if the
            outermost ones tried still did (the network has no finite border).
        after: rows or columns below or right of the core that reach it; None as above.
        shrink: what the output lacks on each side.
        deviation: largest difference, relative to the output's range, between the middle of a
            large image's output and the same place computed from a smaller window that has all
            the context. Rounding apart, anything but 0 means that the network isn't local.
    """

    before: int | None
    after: int | None
    shrink: int
    deviation: float

    def rounded(self, period: int) -> tuple[int, int] | None:
        """Return (before, after) as legal windows need them; None where there is no border.

        Windows start `shrink` px (or whole periods more) before a core, which puts the core on
        the pooling grid, and end whole periods after it.
        """
        if self.before is None or self.after is None:
            return None
        before = round_up(max(0, self.before - self.shrink), period) + self.shrink
        return before, round_up(self.after, period)


def measure_border(
    network: nn.Module, *, in_channels: int, period: int, side: int
) -> MeasuredBorder:
    """Find the border of any network by experiment, in float64 on the CPU.

    Two experiments, because neither is enough: rows and columns of NaN are moved towards a core
    until they reach it (which misses interpolation whose weights depend on the image's size),
    and the core is computed from windows of two sizes (which misses rare dependences).

    Args:
        network: in evaluation mode; it is left as it was.
        in_channels: channels of its input.
        period: where its cores may start, px.
        side: a legal side of the network's input, px, several borders long, to which the network
            also takes `side` − 2·`period`.

    Raises:
        ValueError: if the network doesn't take such sides, or its output is constant (a dead
            network would pass every test).
    """
    probe = copy.deepcopy(network).double().eval()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, in_channels, side, side, dtype=torch.float64, generator=generator)
    with torch.inference_mode():
        whole: Tensor = probe(image)
        shrink = (side - whole.shape[2]) // 2
        start = round_up((whole.shape[2] - period) // 2, period)
        core = slice(start, start + period)

        def reached(rows: slice, columns: slice) -> bool:
            spoilt = image.clone()
            spoilt[:, :, rows, columns] = torch.nan
            return bool(probe(spoilt)[:, :, core, core].isnan().any())

        first, last = start + shrink, start + shrink + period  # of the core, in the input
        everything = slice(None)
        before = _farthest(
            first,
            lambda n: (
                reached(slice(0, first - n), everything) or reached(everything, slice(0, first - n))
            ),
        )
        after = _farthest(
            side - last,
            lambda n: (
                reached(slice(last + n, None), everything)
                or reached(everything, slice(last + n, None))
            ),
        )
        inner = slice(period, side - period)
        moved = slice(start - period, start)
        smaller = probe(image[:, :, inner, inner])[:, :, moved, moved]
        spread = (whole.amax((2, 3)) - whole.amin((2, 3))).max()
        difference = (smaller - whole[:, :, core, core]).abs().max()
    if not spread:
        raise ValueError("the network's output is constant, which tells nothing about its border")
    return MeasuredBorder(before, after, shrink, float(difference / spread))


def _farthest(most: int, reaches: Callable[[int], bool]) -> int | None:
    """Return the smallest n < `most` such that pixels n px away don't reach the core, or None."""
    low, high = 0, most - 1
    if reaches(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if reaches(middle) else (low, middle)
    return low

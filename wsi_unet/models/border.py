"""The border of a network: how much context a core needs, and where cores may start.

`derive_border` is the only truth for it. With d poolings, k 3×3 convolutions per level and side,
and M = 2^d:

- A valid network eats s = k(3M − 2) px per side: the bottom level's k convolutions cost kM, and
  a level j above the bottom costs k·2^j on the way down and k·2^j on the way up, which sum to
  2k(M − 1). Its input side n is legal where every pooling divides it: n ≡ −2k (mod M). So a core
  of T px (a multiple of M) takes n = T + 2k(3M − 1), the least legal side that yields T, and the
  last 2k rows and columns of the output are dropped: 3kM px of context after the core.
- A same-padding network's core depends on k(3M − 1) px per side; rounded up to the period,
  since its windows must start on the pooling grid, 3kM.
- Bilinear upsampling looks at the neighbours of the coarser pixel too, which is M px more per
  side: one period. In a valid network the output's outermost M px, where interpolation had to
  repeat the map's edge, aren't what a larger window gives; so they are never in a core.

These are the least legal numbers where 2k < M (as in the paper). In shallower networks the
rounding inside differs, and up to 2k px too many are taken.

`measure_border` and the tests prove these numbers on real networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsi_unet.geometry import Border, Edge, round_up

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsi_unet.models.config import UNetConfig


def derive_border(config: UNetConfig) -> Border:
    """Return the border of a network of this shape, by formula (see the module's text)."""
    period, k = config.period, config.convolutions
    context = 3 * k * period + (period if config.upsampling == "bilinear" else 0)
    if config.padding == "same":
        # A network that defines odd sides itself sees the slide as it ends.
        edge: Edge = "clip" if config.odd == "none" else "cut"
        return Border(before=context, after=context, shrink=0, period=period, edge=edge)
    # Windows of valid networks need not start on the pooling grid: the shrinkage is what
    # puts the core on it, so 2k px less than `context` are enough before the core.
    return Border(
        before=context - 2 * k,
        after=context,
        shrink=k * (3 * period - 2),
        period=period,
        edge="mirror",
    )


def fixed_border(border: Border, window: int, *, exact: bool) -> tuple[Border, int]:
    """Return the border and the core of a network that is run on windows of one size only.

    They are mirrored at the slide's edge, and never smaller.

    The core is a power of two times the period, so that cores lie on one grid over the whole
    slide; what the window has beyond the core's border becomes border too.

    Args:
        border: what the network needs.
        window: side of its input, px.
        exact: the core gets the whole border, however small it becomes; else it is at least
            about half of the window's side, and what the border lacks is lost.

    Raises:
        ValueError: if no core is left; the message names the least window.
    """
    room = window - border.before - border.after
    if not exact and not border.shrink:
        room = max(room, window // 2)
    if room < border.period:
        least = border.before + border.period + border.after
        raise ValueError(
            f"a window of {window} px leaves nothing between its borders of {border.before} and "
            f"{border.after} px; it takes {least} px"
        )
    core = border.period
    while 2 * core <= room:
        core *= 2
    spare = window - core - border.before - border.after
    before = max(0, border.before + spare // 2 // border.period * border.period)
    after = window - core - before
    return Border(before, after, border.shrink, border.period, "mirror", core), core


def check_side(config: UNetConfig, side: int) -> None:
    """Refuse an image side that the pooling grid doesn't fit, px.

    Raises:
        ValueError: if it doesn't; the message names the next legal side.
    """
    legal = next_legal_side(config, side)
    if side != legal:
        raise ValueError(
            f"a side of {side} px doesn't fit a {config.padding} U-Net of depth {config.depth} "
            f"with {config.convolutions} convolutions per level; the next that does is {legal} px"
        )


def next_legal_side(config: UNetConfig, side: int) -> int:
    """Return the smallest image side (rows or columns, px) >= `side` that the network takes."""
    period, k = config.period, config.convolutions
    if config.odd != "none":
        return max(period, side)
    if config.padding == "same":
        return max(period, round_up(side, period))
    least = 2 * derive_border(config).shrink + 1
    return round_up(max(side, least) + 2 * k, period) - 2 * k


@dataclass(frozen=True)
class MeasuredBorder:
    """What a network was seen to depend on, in px of its input.

    Attributes:
        before: rows or columns above or left of an aligned core that reach it; None if the
            outermost ones tried still did (the network has no finite border).
        after: likewise below or right of it.
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
    import copy

    import torch

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
    """Return the smallest n < `most` at which what lies n px away doesn't reach; None if none."""
    low, high = 0, most - 1
    if reaches(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if reaches(middle) else (low, middle)
    return low

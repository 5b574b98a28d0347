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

The tests prove these numbers on real networks, by experiment.
"""

from __future__ import annotations

from typing import Literal, Protocol

from wsi_unet.geometry import Border, Edge, round_up


class PlainShape(Protocol):
    """What the border of a plain U-Net depends on (see `UNetConfig` for each)."""

    @property
    def padding(self) -> Literal["valid", "same"]:
        """Which kind of 3×3 convolutions."""

    @property
    def depth(self) -> int:
        """Number of 2×2 poolings, d."""

    @property
    def convolutions(self) -> int:
        """3×3 convolutions per level and side, k."""

    @property
    def upsampling(self) -> Literal["transpose", "bilinear"]:
        """How maps are doubled."""

    @property
    def odd(self) -> Literal["none", "zeros", "replicate"]:
        """What fills up a map that had an odd side."""

    @property
    def period(self) -> int:
        """M = 2^d, px."""


def derive_border(config: PlainShape) -> Border:
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


def fixed_border(border: Border, window: int, *, exact: bool) -> Border:
    """Return the border of a network that is run on windows of one size only, with its `tile`.

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
    return Border(before, after, border.shrink, border.period, "mirror", core)


def check_side(config: PlainShape, side: int) -> None:
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


def next_legal_side(config: PlainShape, side: int) -> int:
    """Return the smallest image side (rows or columns, px) >= `side` that the network takes."""
    period, k = config.period, config.convolutions
    if config.odd != "none":
        return max(period, side)
    if config.padding == "same":
        return max(period, round_up(side, period))
    least = 2 * derive_border(config).shrink + 1
    return round_up(max(side, least) + 2 * k, period) - 2 * k

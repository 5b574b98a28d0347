"""The border of a network: how much context a core needs, and where cores may start.

`derive_border` is the only truth for it. With d poolings, k 3×3 convolutions per level and side,
and M = 2^d:

- A valid network eats s = k(3M − 2) px per side: the bottom level's k convolutions cost kM, and
  a level j above the bottom costs k·2^j on the way down and k·2^j on the way up, which sum to
  2k(M − 1). Its input side n is legal where every pooling divides it: n ≡ −2k (mod M). So a core
  of T px (a multiple of M) takes n = T + 2k(3M − 1), the least legal side that yields T, and the
  last 2k rows and columns of the output are dropped: 3kM px of context after the core.
- A same-padding network's pixel depends on k(3M − 1) px per side; rounded up to the period,
  since its windows must start on the pooling grid, 3kM.
- Bilinear upsampling makes a pixel at level j depend on its neighbours at level j + 1 too: at
  most 1 + 2 + … + 2^(d−1) = M − 1 px more per side. Hence one period more before and after; in
  a valid network those pixels of the output are wrong near the window's edge, where the
  interpolation repeats the edge pixel, and fall off with the context.

`measure_border` and the tests prove these numbers on real networks.
"""

from __future__ import annotations

from wsi_unet.geometry import Border, round_up
from wsi_unet.models.config import UNetConfig


def derive_border(config: UNetConfig) -> Border:
    """Return the border of a network of this shape, by formula (see the module's text)."""
    period, k = config.period, config.convolutions
    context = 3 * k * period + (period if config.upsampling == "bilinear" else 0)
    if config.padding == "same":
        return Border(before=context, after=context, shrink=0, period=period, edge="clip")
    # Windows of valid networks need not start on the pooling grid: the shrinkage is what
    # puts the core on it, so 2k px less than `context` are enough before the core.
    return Border(
        before=context - 2 * k,
        after=context,
        shrink=k * (3 * period - 2),
        period=period,
        edge="mirror",
    )


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
    if config.padding == "same":
        return max(period, round_up(side, period))
    least = 2 * derive_border(config).shrink + 1
    return round_up(max(side, least) + 2 * k, period) - 2 * k

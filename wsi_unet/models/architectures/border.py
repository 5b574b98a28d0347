"""The border of a network: how much context a core needs, and where cores may start.

An architecture's `border()` is its only definition: tiles, windows, costs and samples all use that
method. Each family derives it beside its description:

- `unet`: by a formula, which stands at `UNetConfig.border`;
- `resnet_unet` and `residual_unet`: by following one core back through the layers with interval
  arithmetic (`reach`);
- `program`: from what was measured of the program (`wsi_unet.models.probing`).

The tests prove these numbers on real networks, by experiment. What is here is common to all: the
border of networks that run on windows of one size.
"""

from __future__ import annotations

from wsi_unet.geometry import Border


def fix_border(border: Border, window: int, *, exact: bool) -> Border:
    """Return the border of a network that runs on windows of one size only, with its `tile`.

    The windows are mirrored at the slide's edge, and never smaller. The core is a power of two
    times the period, so that cores lie on one grid over the whole slide; what the window has
    beyond the core and its border becomes border too.

    Args:
        border: the border that the network needs.
        window: side of its input, px.
        exact: whether the core gets the whole border, however small the core becomes; otherwise
            the core is at least about half of the window's side, and some border is lost.

    Raises:
        ValueError: no core is left; the message names the smallest window that leaves one.
    """
    room = window - border.before - border.after
    if not exact and not border.shrink:
        room = max(room, window // 2)
    if room < border.period:
        smallest = border.before + border.period + border.after
        raise ValueError(
            f"a window of {window} px leaves nothing between its borders of {border.before} and "
            f"{border.after} px; it takes at least {smallest} px"
        )
    core = border.period
    while 2 * core <= room:
        core *= 2
    spare = window - core - border.before - border.after
    before = max(0, border.before + spare // 2 // border.period * border.period)
    after = window - core - before
    return Border(before, after, border.shrink, border.period, "mirror", core)

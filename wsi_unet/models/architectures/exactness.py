"""Why running a network on windows of one size isn't exact, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wsi_unet.geometry import Border


class Dependence(Protocol):
    """What a network's result depends on; every description of a network says it."""

    @property
    def local(self) -> bool:
        """Whether a pixel of the output depends only on what is near it."""

    @property
    def sized(self) -> bool:
        """Whether the result depends on the size of the image, unless the network is told."""


def inexact_because(network: Dependence, needed: Border, window: int | None) -> str:
    """Say why a network's labels depend on where its windows lie; nothing where they don't.

    Args:
        network: its description.
        needed: the context that a core needs.
        window: side of the only window that it is run on, px; None: any.
    """
    if not network.local:
        return "its result depends on all of the window"
    if window is None:
        return ""
    if network.sized:
        return "its interpolation depends on the window's size"
    if window < needed.before + needed.period + needed.after:
        return f"its window of {window} px leaves less context than it depends on"
    return ""

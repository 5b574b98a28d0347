"""Explaining why the labels of a network depend on how the slide is tiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wsi_unet.geometry import Border


class Locality(Protocol):
    """What a network's output depends on; which every architecture states."""

    @property
    def local(self) -> bool:
        """Whether a pixel of the output depends only on what is within the border around it."""

    @property
    def depends_on_size(self) -> bool:
        """Whether the output depends on the image's size, unless the network is given it."""


def explain_inexactness(network: Locality, needed: Border, window: int | None) -> str:
    """Return why a network's labels depend on where its windows lie; "" where they don't.

    Args:
        network: its architecture.
        needed: the border that the network needs.
        window: side of the only window that it runs on, px; None: any.
    """
    if not network.local:
        return "its result depends on all of the window"
    if window is None:
        return ""
    if network.depends_on_size:
        return "its interpolation depends on the window's size"
    if window < needed.before + needed.period + needed.after:
        return f"its window of {window} px leaves less context than it depends on"
    return ""

"""What people look at."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_unet.view.overlay import write_overlay

__all__ = ["write_overlay"]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: it needs Pillow and the reading of labels."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("wsi_unet.view.overlay"), name)

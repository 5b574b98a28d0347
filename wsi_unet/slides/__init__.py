"""Slides: opening, reading at any pixel size, and finding the tissue on them.

Names are loaded when first used (PEP 562): readers bring heavy libraries along.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_unet.slides.levels import Level, PixelSize, check_mpp
    from wsi_unet.slides.opening import open_slide
    from wsi_unet.slides.resample import (
        Raster,
        Sampling,
        choose_sampling,
        open_raster,
        read_mirrored,
    )
    from wsi_unet.slides.slide import Reader, Slide
    from wsi_unet.slides.tissue import Mask, find_tissue, load_mask, mask_in_box, mask_touches

_HOME_OF = {
    "Level": "levels",
    "Mask": "tissue",
    "PixelSize": "levels",
    "Raster": "resample",
    "Reader": "slide",
    "Sampling": "resample",
    "Slide": "slide",
    "check_mpp": "levels",
    "choose_sampling": "resample",
    "find_tissue": "tissue",
    "load_mask": "tissue",
    "mask_in_box": "tissue",
    "mask_touches": "tissue",
    "open_raster": "resample",
    "open_slide": "opening",
    "read_mirrored": "resample",
}

__all__ = [
    "Level",
    "Mask",
    "PixelSize",
    "Raster",
    "Reader",
    "Sampling",
    "Slide",
    "check_mpp",
    "choose_sampling",
    "find_tissue",
    "load_mask",
    "mask_in_box",
    "mask_touches",
    "open_raster",
    "open_slide",
    "read_mirrored",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module that it lives in."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

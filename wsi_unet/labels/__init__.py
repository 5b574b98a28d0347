"""The output store: pyramidal OME-Zarr 0.5 of labels, probabilities and image, and its progress."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_unet.labels.reading import open_labels, open_probabilities

__all__ = ["open_labels", "open_probabilities"]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: reading needs zarr, dask and xarray."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("wsi_unet.labels.reading"), name)

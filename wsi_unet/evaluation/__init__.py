"""Comparing a prediction with the truth: what the labels are worth."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_unet.evaluation.report import Evaluation
    from wsi_unet.evaluation.run import evaluate

_HOME_OF = {"Evaluation": "report", "evaluate": "run"}

__all__ = ["Evaluation", "evaluate"]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: it needs zarr, dask and xarray."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)

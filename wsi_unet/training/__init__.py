"""Training a network: recipes, samples, losses, the loop.

Names load when first used (PEP 562), so that reading a recipe doesn't wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_unet.training.recipe import Recipe
    from wsi_unet.training.recipe_file import read_recipe
    from wsi_unet.training.report import Training, TrainingProgress
    from wsi_unet.training.run import train

_HOME_OF = {
    "Recipe": "recipe",
    "Training": "report",
    "TrainingProgress": "report",
    "read_recipe": "recipe_file",
    "train": "run",
}

__all__ = ["Recipe", "Training", "TrainingProgress", "read_recipe", "train"]


def __getattr__(name: str) -> object:
    """Load a public name from the module that it lives in."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)

"""The data of a training: files that recipes name, as fields; and their split into parts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_unet.training.data.description import Portion, describe_fields
    from wsi_unet.training.data.field import DataField
    from wsi_unet.training.data.opening import open_fields
    from wsi_unet.training.data.splitting import Parts, split

_HOME_OF = {
    "DataField": "field",
    "Parts": "splitting",
    "Portion": "description",
    "describe_fields": "description",
    "open_fields": "opening",
    "split": "splitting",
}

__all__ = ["DataField", "Parts", "Portion", "describe_fields", "open_fields", "split"]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)

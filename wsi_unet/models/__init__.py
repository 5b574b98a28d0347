"""The network, its border, models on disk, and running them on a device.

Names load when first used (PEP 562), so that what needs no torch (help, info, a model's spec)
doesn't wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_unet.models.border import derive_border
    from wsi_unet.models.checkpoint import (
        Model,
        bundled_models,
        load_model,
        read_spec,
        save_model,
    )
    from wsi_unet.models.config import UNetConfig
    from wsi_unet.models.importing import import_checkpoint, import_model
    from wsi_unet.models.program_import import measure_module
    from wsi_unet.models.spec import LabelClass, ModelClass, ModelSpec, Scaling
    from wsi_unet.models.told import Told
    from wsi_unet.models.unet import UNet

_HOME_OF = {
    "LabelClass": "spec",
    "Model": "checkpoint",
    "ModelClass": "spec",
    "ModelSpec": "spec",
    "Scaling": "spec",
    "Told": "told",
    "UNet": "unet",
    "UNetConfig": "config",
    "bundled_models": "checkpoint",
    "derive_border": "border",
    "import_checkpoint": "importing",
    "import_model": "importing",
    "load_model": "checkpoint",
    "measure_module": "program_import",
    "read_spec": "checkpoint",
    "save_model": "checkpoint",
}

__all__ = [
    "LabelClass",
    "Model",
    "ModelClass",
    "ModelSpec",
    "Scaling",
    "Told",
    "UNet",
    "UNetConfig",
    "bundled_models",
    "derive_border",
    "import_checkpoint",
    "import_model",
    "load_model",
    "measure_module",
    "read_spec",
    "save_model",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module that it lives in."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value

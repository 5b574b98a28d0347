"""The network, its border, models on disk, and running them on a device.

Names load when first used (PEP 562), so that what needs no torch (help, info, a model's spec)
doesn't wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_unet.models.checkpoint import (
        Model,
        bundled_models,
        load_model,
        read_spec,
        save_model,
    )
    from wsi_unet.models.foreign.importing import import_checkpoint, import_model
    from wsi_unet.models.networks.border import derive_border
    from wsi_unet.models.networks.config import UNetConfig
    from wsi_unet.models.networks.unet import UNet
    from wsi_unet.models.programs.importing import measure_module
    from wsi_unet.models.spec import LabelClass, ModelClass, ModelSpec, Scaling
    from wsi_unet.models.told import Told

_HOME_OF = {
    "LabelClass": "spec",
    "Model": "checkpoint",
    "ModelClass": "spec",
    "ModelSpec": "spec",
    "Scaling": "spec",
    "Told": "told",
    "UNet": "networks.unet",
    "UNetConfig": "networks.config",
    "bundled_models": "checkpoint",
    "derive_border": "networks.border",
    "import_checkpoint": "foreign.importing",
    "import_model": "foreign.importing",
    "load_model": "checkpoint",
    "measure_module": "programs.importing",
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

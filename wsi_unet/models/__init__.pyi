from .architectures.unet import UNetConfig as UNetConfig
from .importing.checkpoints import import_checkpoint as import_checkpoint
from .importing.checkpoints import import_model as import_model
from .importing.hints import ImportHints as ImportHints
from .importing.modules import model_from_module as model_from_module
from .importing.programs import measure_module as measure_module
from .model import Model as Model
from .model import bundled_models as bundled_models
from .model import load_model as load_model
from .model import read_spec as read_spec
from .networks.build import build_network as build_network
from .networks.unet import UNet as UNet
from .saving import save_model as save_model
from .spec import LabelClass as LabelClass
from .spec import ModelClass as ModelClass
from .spec import ModelSpec as ModelSpec
from .spec import Normalisation as Normalisation

__all__ = [
    "ImportHints",
    "LabelClass",
    "Model",
    "ModelClass",
    "ModelSpec",
    "Normalisation",
    "UNet",
    "UNetConfig",
    "build_network",
    "bundled_models",
    "import_checkpoint",
    "import_model",
    "load_model",
    "measure_module",
    "model_from_module",
    "read_spec",
    "save_model",
]

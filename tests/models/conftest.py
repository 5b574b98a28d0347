"""Small random models, on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wsi_unet.models.architectures.unet import UNetConfig, next_legal_side
from wsi_unet.models.model import Model
from wsi_unet.models.networks.unet import UNet
from wsi_unet.models.saving import save_model
from wsi_unet.models.spec import ModelClass, ModelSpec, Normalisation

MakeSpec = Callable[..., ModelSpec]
MakeModel = Callable[..., Model]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_spec() -> MakeSpec:
    """Build a spec: architecture by keyword, everything else by `changes`."""

    def make(changes: dict[str, object] | None = None, /, **architecture: object) -> ModelSpec:
        small = {"depth": 2, "base_width": 4, "classes": 3}
        config = UNetConfig.model_validate({**small, **architecture})
        names = "abcdefgh"[: config.classes]
        fields: dict[str, object] = {
            "name": "small",
            "architecture": config,
            "classes": tuple(ModelClass(name=n, color="#102030") for n in names),
            "background": "a",
            "mpp": 0.5,
            "scaling": Normalisation(mean=(0.7, 0.6, 0.5), std=(0.2, 0.3, 0.25)),
        }
        return ModelSpec.model_validate({**fields, **(changes or {})})

    return make


@pytest.fixture
def make_model(make_spec: MakeSpec, tmp_path: Path) -> MakeModel:
    """Save a random network that finds every class, with batch norms that matter."""

    def make(
        changes: dict[str, object] | None = None, /, *, path: Path | None = None, **arch: object
    ) -> Model:
        spec = make_spec(changes, **arch)
        torch.manual_seed(3)
        config = spec.architecture
        assert isinstance(config, UNetConfig)
        network = UNet(config)
        for parameter in network.parameters():
            if parameter.ndim == 1:  # biases that keep most ReLUs open, so that it isn't dead
                torch.nn.init.uniform_(parameter, 0.0, 0.3)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    assert tensor is not None
                    torch.nn.init.uniform_(tensor, 0.5, 2.0)
                for tensor in (module.bias, module.running_mean):
                    assert tensor is not None
                    torch.nn.init.normal_(tensor, std=0.3)
        mean, std = (
            torch.tensor(n)[:, None, None]
            for n in (spec.normalisation.mean, spec.normalisation.std)
        )
        with torch.inference_mode():  # balance the classes on noise
            side = next_legal_side(config, 100)
            noise = torch.rand(1, config.in_channels, side, side)
            logits = network.eval()((noise - mean) / std)
            network.get_parameter("head.bias").sub_(logits.mean((0, 2, 3)))
        return save_model(network, spec, path or tmp_path / "model")

    return make

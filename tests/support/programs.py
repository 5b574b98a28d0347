"""Small networks that aren't ours, as modules and as exported programs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from wsi_unet.models import ModelClass, ModelSpec, Normalisation
from wsi_unet.models.architectures.program import ProgramConfig


def alive(network: nn.Module, seed: int = 0) -> nn.Module:
    """Set random weights with which most ReLUs are active for some inputs."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=(2.0 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.uniform_(module.bias, 0.0, 0.3)
    return network.eval()


class Hourglass(nn.Module):
    """Convolution, pooling, convolution, nearest upsampling, convolution: period 2.

    An aligned core needs 5 px: 1 of the last convolution, 1 more to the pair that it pools from,
    2 of the middle one and 1 of the first. Rounded up to the period that is 6.
    """

    def __init__(self, channels: int = 3, classes: int = 2, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(2 * width, classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        top = F.relu(self.first(image))
        bottom = F.relu(self.second(F.max_pool2d(top, 2)))
        up = F.interpolate(bottom, scale_factor=2.0, mode="nearest")
        output: Tensor = self.last(torch.cat([top, up], 1))
        return output


def write_onnx(network: Hourglass, path: Path, side: int | None = None) -> Path:
    """Write an hourglass as an ONNX program, node by node."""
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    stored.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    padded: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["a"], **padded),
        helper.make_node("Relu", ["a"], ["top"]),
        helper.make_node("MaxPool", ["top"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["b", "second.weight", "second.bias"], ["c"], **padded),
        helper.make_node("Relu", ["c"], ["bottom"]),
        helper.make_node(
            "Resize",
            ["bottom", "", "scales"],
            ["up"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        helper.make_node("Concat", ["top", "up"], ["joined"], axis=1),
        helper.make_node("Conv", ["joined", "last.weight", "last.bias"], ["y"], **padded),
    ]
    channels, classes = network.first.in_channels, network.last.out_channels
    sides: list[Any] = ["h", "w"] if side is None else [side, side]
    graph = helper.make_graph(
        nodes,
        "hourglass",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, *sides])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes, *sides])],
        stored,
    )
    save_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())


def write_torchscript(network: nn.Module, path: Path, side: int = 64) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            network, torch.rand(1, 3, side, side), check_trace=False
        )
        traced.save(str(path))
    return path


def write_export(network: nn.Module, path: Path, side: int = 128) -> Path:
    """Write a torch.export program that takes images of one size only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(network, (torch.rand(1, 3, side, side),)), path)
    return path


def spec_for(architecture: ProgramConfig, **changes: Any) -> ModelSpec:
    names = "abcdefgh"[: architecture.classes]
    fields: dict[str, Any] = {
        "name": "other",
        "architecture": architecture,
        "classes": tuple(ModelClass(name=name, color="#102030") for name in names),
        "background": "a",
        "mpp": None,
        "scaling": Normalisation(mean=(0.6,) * 3, std=(0.25,) * 3),
    }
    return ModelSpec.model_validate(fields | changes)

"""Measuring what a network costs per pixel of its input, roughly, for plans and deadlines."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from wsi_unet.models.exported.loading import OnnxProgram
from wsi_unet.models.exported.onnx_file import FLOAT32


@dataclass(frozen=True)
class ResourceUsage:
    """The costs of a network.

    Attributes:
        flops: operations per pixel of the input; a multiplication and an addition count as two.
        memory: bytes per pixel of the input, in float32, of the maps that exist at once.
        parameters: numbers in the network's weights.
    """

    flops: float
    memory: float
    parameters: int


@singledispatch
def measure_usage(network: nn.Module, in_channels: int, side: int) -> ResourceUsage:
    """Return the costs of a network, by running it once (an ONNX program is only read).

    Args:
        network: in evaluation mode, float32, on the CPU.
        in_channels: channels of its input.
        side: side of an image that it takes, px.
    """
    image = torch.zeros(1, in_channels, side, side)
    with (
        torch.inference_mode(),
        FlopCounterMode(display=False) as operations,
        _LiveTensors() as live,
    ):
        network(image)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return ResourceUsage(operations.get_total_flops() / side**2, live.peak / side**2, parameters)


@measure_usage.register
def _(network: OnnxProgram, in_channels: int, side: int) -> ResourceUsage:
    from onnx import shape_inference

    model = network.proto()
    for value in model.graph.input:
        sides = value.type.tensor_type.shape.dim
        if len(sides) == 4:
            for dimension, length in zip(sides, (1, in_channels, side, side), strict=True):
                dimension.dim_value = length
    graph = shape_inference.infer_shapes(model).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.name not in shapes:
            sides = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(length.dim_value for length in sides)
    return ResourceUsage(
        _count_flops(graph, shapes) / side**2,
        _find_peak(graph, shapes) / side**2,
        _count_parameters(graph),
    )


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that exist while it is active; `peak` is the most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: dict[int, int] = {}
        self._now = 0
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return output

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def _count_parameters(graph: Any) -> int:
    scales = {
        name for node in graph.node if node.op_type in {"Resize", "Upsample"} for name in node.input
    }
    return sum(
        math.prod(tensor.dims)
        for tensor in graph.initializer
        if tensor.data_type == FLOAT32 and tensor.name not in scales
    )


def _count_flops(graph: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the operations of the convolutions, which are nearly all of the work."""
    total = 0
    for node in graph.node:
        if node.op_type in {"Conv", "ConvTranspose"} and len(shapes.get(node.input[1], ())) == 4:
            weights = shapes[node.input[1]]
            # Each output pixel meets every weight once; in a transposed convolution, each input
            # pixel does.
            name = node.output[0] if node.op_type == "Conv" else node.input[0]
            total += 2 * math.prod(weights) * math.prod(shapes.get(name, ())[2:])
    return total


def _find_peak(graph: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the most bytes that exist at once: a map exists until its last use."""
    last = {name: i for i, node in enumerate(graph.node) for name in node.input}
    stored = {tensor.name for tensor in graph.initializer}
    live = peak = 0
    for index, node in enumerate(graph.node):
        live += sum(4 * math.prod(shapes.get(name, ())) for name in node.output)
        peak = max(peak, live)
        done = {name for name in node.input if last[name] == index} - stored
        live -= sum(4 * math.prod(shapes.get(name, ())) for name in done)
    return peak

"""ONNX programs as data: what a program takes, and whether it may run. Nothing is run here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_unet.errors import ModelError, OptionError, foreign_errors_as

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

STANDARD = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Domains of the operators that onnxruntime has built in."""

ENDLESS = {"Loop", "Scan"}
"""Operators that may never end."""

LARGEST_CONSTANT = 2**28
"""The most numbers that an operator may create from a shape alone."""

SIDES = range(96, 4097)
"""Sides that a program with one side only may take, px; smaller ones leave no room to probe."""

FLOAT32 = 1  # TensorProto.FLOAT


@dataclass(frozen=True)
class OnnxSignature:
    """The images that a program takes.

    Attributes:
        in_channels: channels of its input; None for any number.
        input_side: side of its input, px; None for any side.
    """

    in_channels: int | None
    input_side: int | None


def check_onnx(path: Path, content: bytes) -> OnnxSignature:
    """Return what images an ONNX program takes, and refuse programs that can't or mustn't be run.

    Args:
        path: the program's file, for messages.
        content: the file's bytes.

    Raises:
        ModelError: the program is damaged, needs other files or operators that onnxruntime
            doesn't have, may never end, or isn't a network from one image to one map of classes.
        OptionError: the packages that read it aren't installed.
    """
    model = parse_onnx(path, content)
    functions = list(model.functions)
    own = {function.domain for function in functions}
    for graph in (model.graph, *functions):
        for node in _nodes(graph):
            _check_node(path, node, own)
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == tensor.EXTERNAL:
            raise ModelError(
                f"{path} stores {tensor.name[:60]!r} in another file; save the program as one file"
            )
    with foreign_errors_as(ModelError, f"{path} isn't an ONNX program that can be run"):
        _check_constants(path, model.graph)
    return _read_signature(path, model)


def parse_onnx(path: Path, content: bytes) -> ModelProto:
    """Parse an ONNX program without checking it.

    Raises:
        ModelError: the content isn't an ONNX program.
        OptionError: the packages that read it aren't installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise OptionError(
            f"{path} is an ONNX program, which needs more packages: pip install 'wsi-unet[onnx]'"
        ) from error
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelError(f"{path} isn't an ONNX program, or is damaged") from error
    if not model.graph.node:
        raise ModelError(f"{path} isn't an ONNX program: it has no operators")
    return model


def _nodes(graph: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """Yield every operator, including those of nested graphs."""
    pending: list[Any] = [graph]
    while pending:
        for node in pending.pop().node:
            yield node
            for attribute in node.attribute:
                pending += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _check_node(path: Path, node: NodeProto, own: set[str]) -> None:
    if node.domain not in STANDARD | own:
        raise ModelError(
            f"{path} uses the operator {node.domain[:60]}.{node.op_type[:60]}, which isn't a "
            "standard one; export the network with standard operators"
        )
    if node.op_type in ENDLESS:
        raise ModelError(
            f"{path} contains the operator {node.op_type}, which may never end; export the network "
            "without it"
        )


def _tensors(model: ModelProto) -> Iterator[Any]:
    """Yield every stored tensor, wherever in the program it is."""
    pending: list[Any] = [model]
    while pending:
        message = pending.pop()
        if message.DESCRIPTOR.name == "TensorProto":
            yield message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending += value if isinstance(value, Sequence) else [value]


def _check_constants(path: Path, graph: GraphProto) -> None:
    """Refuse constants of a few bytes that become enormous when the program is opened."""
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output and node.attribute:
            stored[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        if node.op_type not in {"ConstantOfShape", "Expand", "Tile"}:
            continue
        tensor = stored.get(node.input[-1])
        if tensor is None or math.prod(tensor.dims) > 16:
            continue
        shape = [int(side) for side in numpy_helper.to_array(tensor).reshape(-1)]
        if math.prod(shape) > LARGEST_CONSTANT:
            raise ModelError(
                f"{path} creates a constant of {'×'.join(map(str, shape))} numbers, more than any "
                "network needs; it isn't run"
            )


def _read_signature(path: Path, model: ModelProto) -> OnnxSignature:
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    for values, what in ((inputs, "inputs"), (model.graph.output, "outputs")):
        if len(values) != 1:
            raise ModelError(
                f"{path} has {len(values)} {what}; only networks with one image in and one map of "
                "classes out can be run"
            )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type != FLOAT32:
        raise ModelError(f"{path} takes another number type than float32; export it in float32")
    sides = [
        length.dim_value if length.HasField("dim_value") else None for length in tensor.shape.dim
    ]
    if len(sides) != 4 or sides[0] not in (None, 1):
        raise ModelError(
            f"{path} takes arrays of shape {sides}; only networks that take (1, channels, h, w) "
            "can be run"
        )
    if sides[2] != sides[3]:
        raise ModelError(
            f"{path} takes images of {sides[3]}×{sides[2]} px; only programs that take square ones "
            "can be run"
        )
    if sides[2] is not None and sides[2] not in SIDES:
        raise ModelError(
            f"{path} takes images of {sides[2]}×{sides[2]} px only; programs that take {SIDES[0]} "
            f"to {SIDES[-1]} px, or any side, can be run"
        )
    return OnnxSignature(sides[1], sides[2])

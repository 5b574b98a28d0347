"""ONNX programs of a few bytes that take enormous memory when they are opened or run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper, numpy_helper
from onnx import TensorProto as Kind
from support.programs import Hourglass, alive, save_onnx, write_onnx

from wsi_unet.errors import ModelError
from wsi_unet.models.exported.vetting import vet_onnx
from wsi_unet.models.importing.programs import import_program

Parts = tuple[list[NodeProto], dict[str, Any]]
FAR = 100_000


def concatenated() -> Parts:
    nodes = [
        helper.make_node("Concat", ["s", "s"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["r"], keepdims=0),
    ]
    return nodes, {"s": np.array([FAR], np.int64)}


def inside() -> Parts:
    def branch(name: str) -> Any:
        nodes = [
            helper.make_node("ConstantOfShape", [f"{name}s"], [f"{name}l"]),
            helper.make_node("ReduceSum", [f"{name}l"], [f"{name}r"], keepdims=0),
        ]
        out = helper.make_tensor_value_info(f"{name}r", Kind.FLOAT, [])
        shape = numpy_helper.from_array(np.array([FAR, FAR], np.int64), f"{name}s")
        return helper.make_graph(nodes, name, [], [out], [shape])

    node = helper.make_node("If", ["yes"], ["r"], then_branch=branch("a"), else_branch=branch("b"))
    return [node], {"yes": np.array(True)}


def ranged() -> Parts:
    nodes = [
        helper.make_node("Range", ["first", "end", "step"], ["large"]),
        helper.make_node("Cast", ["large"], ["cast"], to=Kind.FLOAT),
        helper.make_node("ReduceMean", ["cast"], ["r"], keepdims=0),
    ]
    numbers = {"first": 0, "end": FAR**2, "step": 1}
    return nodes, {name: np.array(number, np.int64) for name, number in numbers.items()}


def resized() -> Parts:
    nodes = [
        helper.make_node("Resize", ["c", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("ReduceMean", ["large"], ["r"], axes=[2, 3]),
    ]
    return nodes, {"scales": np.array([1, 1, 500, 500], np.float32)}


def padded() -> Parts:
    nodes = [
        helper.make_node("Pad", ["c", "pads"], ["large"]),
        helper.make_node("ReduceMean", ["large"], ["r"], axes=[2, 3]),
    ]
    return nodes, {"pads": np.array([0, 0, 0, 0, 0, 0, FAR, FAR], np.int64)}


@pytest.mark.parametrize("make", [concatenated, inside, ranged, resized, padded])
def test_bombs_are_refused(make: Callable[[], Parts], tmp_path: Path) -> None:
    nodes, stored = make()
    stored["w"] = np.ones((2, 3, 1, 1), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            *nodes,
            helper.make_node("Add", ["c", "r"], ["y"]),
        ],
        "bomb",
        [helper.make_tensor_value_info("x", Kind.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", Kind.FLOAT, [1, 2, "h", "w"])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    path = tmp_path / "bomb.onnx"
    save_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    with pytest.raises(ModelError, match=r"bomb\.onnx needs more than 1\.\d GiB of memory"):
        import_program(path)


@pytest.mark.parametrize("side", [0, 8, 10_000])
def test_sides_that_cannot_be_measured_are_refused(side: int, tmp_path: Path) -> None:
    network = alive(Hourglass())
    assert isinstance(network, Hourglass)
    path = write_onnx(network, tmp_path / "one.onnx", side)
    with pytest.raises(ModelError, match=rf"takes images of {side}×{side} px only; programs"):
        import_program(path)


def test_other_faults_are_left_to_other_checks(tmp_path: Path) -> None:
    network = alive(Hourglass())
    assert isinstance(network, Hourglass)
    content = write_onnx(network, tmp_path / "one.onnx", 128).read_bytes()
    vet_onnx(tmp_path, content, 3, 128)
    vet_onnx(tmp_path, content, 4, 128)  # not its channels
    vet_onnx(tmp_path, b"nothing", 3, None)

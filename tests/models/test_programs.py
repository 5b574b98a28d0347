"""Exported programs: their labels, refusals, and that only trusted ones run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from support.oracle import textured, write_png
from support.programs import (
    Hourglass,
    alive,
    save_onnx,
    write_export,
    write_onnx,
    write_torchscript,
)

import wsi_unet
from wsi_unet.errors import ModelError, OptionError
from wsi_unet.geometry import Box
from wsi_unet.models import load_model
from wsi_unet.models.architectures.costs import parameter_count
from wsi_unet.models.architectures.program import ProgramConfig
from wsi_unet.models.exported.loading import load_program, prepare_network
from wsi_unet.models.importing.checkpoints import import_model
from wsi_unet.models.importing.hints import ImportHints
from wsi_unet.models.importing.imported_models import load_or_import_model
from wsi_unet.models.importing.programs import import_program
from wsi_unet.models.inference.predictor import Predictor
from wsi_unet.models.model import Model
from wsi_unet.models.program_file import open_program

TOLD = ImportHints(classes=("a", "b"), scale="0.6,0.6,0.6/0.25,0.25,0.25", name="hourglass")


@pytest.fixture(scope="module")
def network() -> Hourglass:
    torch.set_num_threads(1)
    network = alive(Hourglass())
    assert isinstance(network, Hourglass)
    with torch.inference_mode():  # both classes win somewhere
        output = network(
            (torch.from_numpy(textured(96, 96)).permute(2, 0, 1)[None] / 255 - 0.6) * 4
        )
        network.get_parameter("last.bias").sub_(output.mean((0, 2, 3)))
    return network


@pytest.fixture(scope="module")
def files(network: Hourglass, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    return {
        "onnx": write_onnx(network, folder / "hourglass.onnx"),
        "torchscript": write_torchscript(network, folder / "hourglass.pt"),
        "export": write_export(network, folder / "hourglass.pt2"),
    }


@pytest.fixture(scope="module")
def models(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    return {
        kind: import_model(path, folder / kind, TOLD, trust=kind != "onnx")
        for kind, path in files.items()
    }


def whole_image(network: Hourglass, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the labels of one pass over the image, mirrored by far more than the border."""
    rows, columns, _ = image.shape
    padded = np.pad(image, ((16, 16 + rows % 2), (16, 16 + columns % 2), (0, 0)), mode="reflect")
    scaled = (padded.astype(np.float32) / 255 - 0.6) / 0.25
    with torch.inference_mode():
        output = network(torch.from_numpy(scaled).permute(2, 0, 1)[None])[0]
    labels: NDArray[np.uint8] = output.argmax(0).numpy().astype(np.uint8)
    return labels[16 : 16 + rows, 16 : 16 + columns]


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "export"])
def test_what_an_import_measures(models: dict[str, Model], kind: str) -> None:
    config = models[kind].spec.architecture
    assert isinstance(config, ProgramConfig)
    assert (config.kind, config.in_channels, config.classes) == (kind, 3, 2)
    assert (config.period, config.before, config.after, config.shrink) == (2, 6, 6, 0)
    assert (config.local, config.depends_on_size) == (True, False)
    assert config.input_side == (128 if kind == "export" else None)
    assert models[kind].spec.window == config.input_side
    assert models[kind].spec.exactness == "exact"
    assert config.flops_per_pixel > 500
    assert parameter_count(models[kind].spec) == 716  # (27+1)·6 + (54+1)·6 + (108+1)·2


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "export"])
def test_a_program_segments_as_one_pass_of_the_network(
    models: dict[str, Model], network: Hourglass, kind: str, tmp_path: Path
) -> None:
    image = textured(301, 260)
    slide = write_png(tmp_path / "slide.png", image)
    model = models[kind].path if kind == "onnx" else models[kind]
    report = wsi_unet.segment(
        slide, tmp_path / "out.ome.zarr", model, tissue="none", block=512, precision="auto"
    )
    assert report.state == "finished"
    labels = wsi_unet.open_labels(report.output).values
    expected = whole_image(network, image)
    assert 0.2 < expected.mean() < 0.8
    assert np.mean(labels == expected) > 0.9999


@pytest.mark.parametrize(
    ("weight", "message"), [(0.0, "noise is constant"), (np.nan, "noise is constant or not fin")]
)
def test_what_is_wrong_names_the_file(weight: float, message: str, tmp_path: Path) -> None:
    network = alive(Hourglass())
    assert isinstance(network, Hourglass)
    with torch.no_grad():
        network.get_parameter("last.weight").fill_(weight)
    path = write_onnx(network, tmp_path / "wrong.onnx", 128)
    with pytest.raises(ModelError, match=rf"wrong\.onnx: the network's output for {message}"):
        import_model(path, tmp_path / "model", TOLD)


def test_the_side_of_a_program_that_does_not_declare_it_is_found(tmp_path: Path) -> None:
    network = alive(Hourglass())
    assert isinstance(network, Hourglass)
    model = nodes_of(write_onnx(network, tmp_path / "whole.onnx"))
    model.graph.initializer.append(
        numpy_helper.from_array(np.zeros((1, 1, 128, 128), np.float32), "none")
    )
    model.graph.node[0].input[0] = "added"
    model.graph.node.insert(0, helper.make_node("Add", ["x", "none"], ["added"]))
    save_onnx(model, tmp_path / "one.onnx")
    _, spec = import_program(tmp_path / "one.onnx", TOLD)
    assert isinstance(spec.architecture, ProgramConfig)
    assert (spec.architecture.input_side, spec.architecture.period) == (128, 2)


def test_onnx_runs_in_worker_processes(
    models: dict[str, Model], network: Hourglass, tmp_path: Path
) -> None:
    image = textured(120, 130)
    slide = write_png(tmp_path / "slide.png", image)
    trusted = models["torchscript"]
    report = wsi_unet.segment(
        slide,
        tmp_path / "out.ome.zarr",
        trusted,
        tissue="none",
        block=512,
        cluster=wsi_unet.ClusterOptions(workers=1),
    )
    labels = wsi_unet.open_labels(report.output).values
    assert np.mean(labels == whole_image(network, image)) > 0.9999


@pytest.mark.parametrize("kind", ["torchscript", "export"])
def test_nothing_that_can_run_code_is_opened_unasked(
    files: dict[str, Path],
    models: dict[str, Model],
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr(torch.jit, "load", opened)
    monkeypatch.setattr(torch.export, "load", opened)
    slide = write_png(tmp_path / "slide.png", textured(64, 64))
    message = r"which can run any code when it is loaded; give `trust=True`"
    with pytest.raises(ModelError, match=message):
        import_model(files[kind], tmp_path / "model")
    for source in (files[kind], models[kind].path):
        with pytest.raises(ModelError, match=message):
            load_or_import_model(source)
        with pytest.raises(ModelError, match=message):
            wsi_unet.segment(slide, tmp_path / "out.ome.zarr", source)
    assert not (tmp_path / "out.ome.zarr").exists()
    # Even a trusted one is only opened to be run.
    load_model(models[kind].path, trust=True)


def test_a_changed_program_is_another_model(models: dict[str, Model], tmp_path: Path) -> None:
    path = shutil.copytree(models["onnx"].path, tmp_path / "model")
    model = load_model(path)
    assert model.sha256 == models["onnx"].sha256
    with (path / "program.onnx").open("ab") as file:
        file.write(b"\x92\x03\x00")  # a field that nobody knows
    with pytest.raises(ModelError, match="has changed since it was loaded"):
        model.build()
    assert load_model(path).sha256 != model.sha256


def test_programs_are_float32(models: dict[str, Model]) -> None:
    with pytest.raises(OptionError, match="in the number type it was saved in, float32"):
        Predictor(models["onnx"], precision="bfloat16")
    assert Predictor(models["onnx"], device="cpu").precision == "float32"


def test_a_checkpoint_isnt_taken_for_a_program(network: Hourglass, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    assert open_program(tmp_path / "weights.pth") is None
    assert open_program(tmp_path / "absent.onnx") is None


def test_a_program_is_imported_once_for_all_runs(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_UNET_CACHE", str(tmp_path))
    first = load_or_import_model(files["onnx"])
    monkeypatch.setattr("wsi_unet.models.importing.programs.import_program", None)
    assert load_or_import_model(files["onnx"]) == first


def nodes_of(path: Path) -> onnx.ModelProto:
    return onnx.load_model_from_string(path.read_bytes())


def spoil_external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def spoil_external_in_function(model: onnx.ModelProto) -> None:
    """A tensor of a branch of a function."""
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1])
    tensor.external_data.add(key="location", value="../../etc/passwd")
    value = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["hidden"], ["o"])
    branch = helper.make_graph([node], "branch", [], [value], [tensor])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model.functions.append(
        helper.make_function("own", "F", ["c"], ["y"], [choice], [helper.make_opsetid("", 17)])
    )


def spoil_external_sparse(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant", output=["k"])
    attribute = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.values.name = "hidden"
    attribute.sparse_tensor.values.data_location = TensorProto.EXTERNAL


def spoil_numbers(model: onnx.ModelProto) -> None:
    model.graph.initializer.add(name="torn", data_type=TensorProto.INT64, dims=[1], raw_data=b"1")
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["torn"], ["t"]))


def spoil_arguments(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Expand", [], ["t"]))


def spoil_domain(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "evil.ops"


def spoil_loop(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Loop"


def spoil_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def spoil_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))


def spoil_constant(model: onnx.ModelProto) -> None:
    shape = helper.make_tensor("huge", TensorProto.INT64, [2], [2**20, 2**20])
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["bomb"]))


def spoil_shape(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 96


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_external, "stores 'first.weight' in another file"),
        (spoil_external_in_function, "stores 'hidden' in another file"),
        (spoil_external_sparse, "stores 'hidden' in another file"),
        (spoil_numbers, "isn't an ONNX program that can be run"),
        (spoil_arguments, "isn't an ONNX program that can be run"),
        (spoil_domain, "operator evil.ops.Relu, which isn't a standard one"),
        (spoil_loop, "contains the operator Loop, which may never end"),
        (spoil_type, "another number type than float32"),
        (spoil_inputs, "has 2 inputs"),
        (spoil_constant, "creates a constant of 1048576×1048576 numbers"),
        (spoil_shape, "only programs that take square ones"),
    ],
)
def test_onnx_that_must_not_run_is_refused(
    files: dict[str, Path], tmp_path: Path, spoil: object, message: str
) -> None:
    model = nodes_of(files["onnx"])
    assert callable(spoil)
    spoil(model)
    save_onnx(model, tmp_path / "bad.onnx")
    with pytest.raises(ModelError, match=message):
        import_model(tmp_path / "bad.onnx", tmp_path / "model", TOLD)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("content", [b"", b"\x08\x08garbage", b"\x08\x08"])
def test_damaged_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="ONNX program"):
        import_model(path, tmp_path / "model", TOLD)


def test_a_damaged_torchscript_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(files["torchscript"].read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        import_model(path, tmp_path / "model", TOLD, trust=True)


def test_the_nuclei_unet_reproduces_its_stored_output(shared_data: Path) -> None:
    folder = shared_data / "foreign_models" / "unet2d_nuclei_broad"
    image = np.load(folder / "test_input.npy").astype(np.float32)
    expected = np.load(folder / "test_output.npy")
    scaled = torch.from_numpy((image - image.mean()) / image.std())
    for name, kind in (("weights.onnx", "onnx"), ("weights_torchscript_1.86MB.pt", "torchscript")):
        content = (folder / name).read_bytes()
        program = prepare_network(
            load_program(folder / name, kind, content),
            device="cpu",
            dtype=torch.float32,
            threads=1,
        )
        with torch.inference_mode():
            output = program(scaled).numpy()
        assert np.abs(output - expected).mean() <= 0.002, name
        found, wanted = output > 0.5, expected > 0.5
        assert (found & wanted).sum() / (found | wanted).sum() >= 0.99, name


def test_the_nuclei_unet_segments_a_slide(
    shared_data: Path, example_slide_path: Path, tmp_path: Path
) -> None:
    file = shared_data / "foreign_models" / "unet2d_nuclei_broad" / "weights.onnx"
    hints = ImportHints(classes=("nucleus",), scale="slide", name="broad", license="MIT")
    model = import_model(file, tmp_path / "broad", hints)
    spec = model.spec
    assert (spec.head, spec.activated, spec.channel_order) == ("sigmoid", True, "gray")
    assert (spec.window, spec.tile, spec.exactness) == (512, 256, "exact")
    report = wsi_unet.segment(
        example_slide_path,
        tmp_path / "out.ome.zarr",
        model.path,
        region=(0, 0, 1000, 1000),
        block=1024,
    )
    assert report.state == "finished"
    labels = wsi_unet.open_labels(report.output).values[:1000, :1000]
    assert 0.01 < (labels == 1).mean() < 0.9


def test_windows_of_another_side_are_refused(models: dict[str, Model]) -> None:
    spec = models["export"].spec
    with pytest.raises(ValueError, match="takes images of 128 px only"):
        type(spec).model_validate(spec.model_dump() | {"window": 256})
    predictor = Predictor(models["export"], device="cpu")
    core = Box(64, 64, 128, 128)
    assert predictor.border.tile == 64
    assert predictor.border.window(core, (512, 512)).shape == (128, 128)

"""Exported programs on the command line: imported, inspected, run; only if trusted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from support.oracle import textured, write_png
from support.programs import Hourglass, alive, write_onnx, write_torchscript

from wsi_unet.errors import OutputError
from wsi_unet.segmentation.worker.task import Run, Task, run_task
from wsi_unet_cli.main import cli


def run(*arguments: str | Path) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def network() -> Hourglass:
    network = alive(Hourglass())
    assert isinstance(network, Hourglass)
    return network


def test_an_onnx_file_is_imported_inspected_and_run(network: Hourglass, tmp_path: Path) -> None:
    file = write_onnx(network, tmp_path / "net.onnx")
    done = run("model", "import", file, "-o", tmp_path / "model", "--classes", "a,b", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["spec"]["architecture"]["family"] == "program"
    assert found["summary"]["exactness"] == "exact"
    done = run("model", "inspect", file)
    assert done.exit_code == 0, done.output
    assert "an ONNX program" in done.stdout
    slide = write_png(tmp_path / "slide.png", textured(80, 90))
    options = ("--tissue", "none", "--block", "512", "-q")
    done = run("segment", slide, "-m", tmp_path / "model", "-o", tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    refused = run(
        "segment", slide, "-m", tmp_path / "model", "-o", tmp_path / "b", "--precision", "bfloat16"
    )
    assert refused.exit_code == 2
    assert "computes in the number type it was saved in, float32" in refused.stderr


def test_a_program_that_can_run_code_needs_to_be_trusted_each_time(
    network: Hourglass, tmp_path: Path
) -> None:
    file, model = write_torchscript(network, tmp_path / "net.pt"), tmp_path / "model"
    slide, out = write_png(tmp_path / "slide.png", textured(80, 90)), tmp_path / "out"
    commands = (
        ("model", "import", file, "-o", model),
        ("model", "inspect", file),
        ("segment", slide, "-m", model, "-o", out, "--tissue", "none", "--block", "512", "-q"),
        ("model", "verify", model),
    )
    for command in commands:
        done = run(*command)
        assert done.exit_code == 2, done.output
        assert done.stderr.count("\n") == 1
        assert "can run any code when it is loaded; give --trust" in done.stderr
        done = run(*command, "--trust")
        assert done.exit_code == 0, done.output


def test_nobody_is_trusted_because_the_output_says_so(network: Hourglass, tmp_path: Path) -> None:
    """Who can write to the output can't make workers load another file."""
    model, out = tmp_path / "model", tmp_path / "out"
    run("model", "import", write_onnx(network, tmp_path / "net.onnx"), "-o", model)
    slide = write_png(tmp_path / "slide.png", textured(80, 90))
    options = ("--tissue", "none", "--block", "512", "--image", "none", "-q")
    assert run("segment", slide, "-m", model, "-o", out, *options).exit_code == 0
    (record,) = (out / ".wsi_unet").glob("*/run.json")
    document = json.loads(record.read_text())
    assert document["parameters"]["model"]["trust"] is False
    document["parameters"]["model"] |= {"trust": True, "path": "/evil", "sha256": "0" * 64}
    record.write_text(json.dumps(document))
    stored = Run(str(out), record.parent.name, document["signature"], "session")
    with pytest.raises(OutputError, match="the parameters of 'net' were changed"):
        run_task(Task(stored, (0, 0)))

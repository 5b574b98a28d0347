"""`wsi-unet` as a process of its own, on the real slide: streams, signals, pipes, exit codes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support import warm

from wsi_unet_cli.main import cli

PROGRAM = (sys.executable, "-c", "from wsi_unet_cli.main import main; main()")
TIMEOUT = 120


def start(
    *arguments: str | Path,
    cwd: Path,
    stdout: int = subprocess.PIPE,
    popen: type[subprocess.Popen[str]] = subprocess.Popen,
) -> subprocess.Popen[str]:
    """Start the program; by `warm.Popen` where it doesn't matter how Python starts and ends."""
    return popen(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error::UserWarning:wsi_unet"},
    )


def run(*arguments: str | Path, cwd: Path) -> tuple[int, str, str]:
    with start(*arguments, cwd=cwd) as process:
        stdout, stderr = process.communicate(timeout=TIMEOUT)
    return process.returncode, stdout, stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small network with random weights, for pixels of any size."""
    import torch

    from wsi_unet import save_model
    from wsi_unet.models import ModelClass, ModelSpec, Normalisation, UNet, UNetConfig

    config = UNetConfig(depth=2, base_width=8)
    torch.manual_seed(7)
    spec = ModelSpec(
        name="random",
        architecture=config,
        classes=(ModelClass(name="a", color="#ff0000"), ModelClass(name="b", color="#0000ff")),
        background=None,
        mpp=None,
        normalisation=Normalisation(mean=(0.7, 0.6, 0.7), std=(0.2, 0.2, 0.2)),
    )
    return save_model(UNet(config), spec, tmp_path_factory.mktemp("model") / "random").path


def small_run(model: Path, slide: Path) -> tuple[str | Path, ...]:
    """Return the arguments of a run of 30 blocks that takes a few seconds."""
    return ("segment", slide, "--model", model, "--block", "512", "--tile", "128",
            "--precision", "float32", "--tissue", "none", "--output", "out.ome.zarr")  # fmt: skip


def test_a_run_from_start_to_picture(
    tmp_path: Path,
    model: Path,
    example_slide_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, stdout, stderr = run(*small_run(model, example_slide_path), "--json", cwd=tmp_path)
    assert code == 0, stderr
    (report,) = json.loads(stdout)["slides"]
    assert report["state"] == "finished"
    assert report["blocks"]["done"] == report["blocks"]["total"] == 30
    assert sum(item["pixels"] for item in report["classes"]) == 2967 * 2220
    assert "segmenting" in stderr
    assert "Traceback" not in stderr

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["status", "out.ome.zarr", "--verify", "--json"])
    assert done.exit_code == 0, done.output
    assert {found["state"] for found in json.loads(done.stdout)["runs"]} == {"finished"}

    done = CliRunner().invoke(cli, ["overlay", "out.ome.zarr"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "overlay  out-overlay.png\n"
    with Image.open("out-overlay.png") as picture:
        assert np.asarray(picture).std() > 10

    again = CliRunner().invoke(cli, [*map(str, small_run(model, example_slide_path)), "-q"])
    assert (again.exit_code, again.stderr) == (0, "")
    assert "nothing was left to compute" in again.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_the_printed_command_resumes(
    tmp_path: Path,
    model: Path,
    example_slide_path: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = small_run(model, example_slide_path)
    with start(*arguments, "--json", cwd=tmp_path, popen=warm.Popen) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if "segmenting" in line:
                break
        process.send_signal(number)
        stderr = process.stderr.read()
        (stopped,) = json.loads(process.stdout.read())["slides"]
    assert process.returncode == 1, stderr
    assert stopped["state"] == "interrupted"
    assert "Traceback" not in stderr
    assert "error" not in stderr
    program, *resume = shlex.split(stderr.splitlines()[-1])
    assert program == "wsi-unet"

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, resume)
    assert done.exit_code == 0, done.output
    (report,) = json.loads(done.stdout)["slides"]
    assert report["state"] == "finished"
    assert report["blocks"]["done"] == 30
    assert report["blocks"]["resumed"] >= stopped.get("blocks", {}).get("done", 0)


def test_the_reader_of_a_pipe_may_leave(tmp_path: Path, example_slide_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with start("info", example_slide_path, cwd=tmp_path, stdout=writing) as process:
            _, stderr = process.communicate(timeout=TIMEOUT)
    finally:
        os.close(writing)
    assert process.returncode == 1
    assert stderr == ""


def test_a_file_name_that_is_not_utf8(tmp_path: Path, example_slide_path: Path) -> None:
    slide = os.fsdecode(os.fsencode(tmp_path) + b"/\xff[red].svs")
    Path(slide).symlink_to(example_slide_path)
    code, stdout, stderr = run("info", slide, cwd=tmp_path)
    assert code == 0, stderr
    assert "\\xff[red].svs" in stdout
    code, stdout, stderr = run("info", slide, "--json", cwd=tmp_path)
    assert code == 0, stderr
    assert json.loads(stdout)["slide"].endswith("[red].svs")


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", "missing.svs"),
        ("segment", "missing.svs", "--plan", "--json"),
        ("segment", "empty.svs"),
        ("segment", "garbage.svs"),
        ("segment", "text.svs"),
        ("segment", "nothing"),
        ("segment", "nothing/*.svs", "-o", "out"),
        ("segment", "nothing", "text.svs", "-o", "out"),
        ("segment", "missing.csv"),
        ("segment", "garbage.csv", "-o", "out"),
        ("segment", "text.svs", "./missing/text.svs", "-o", "out/"),
        ("segment", "text.svs", "missing.svs", "-o", "gs://bucket/out"),
        ("info", "garbage.svs"),
        ("status", "."),
        ("overlay", "missing.ome.zarr"),
        ("models", "text.svs"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.svs").write_bytes(b"")
    (tmp_path / "garbage.svs").write_bytes(np.random.default_rng(1).bytes(1001))
    (tmp_path / "text.svs").write_text("This is not a slide.\n" * 50)
    (tmp_path / "garbage.csv").write_bytes(b"\xff\xfe\n\xff\n")
    (tmp_path / "nothing").mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2, done.output
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    if "--json" in arguments:
        assert json.loads(done.stdout)["exit_code"] == 2
    else:
        assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_process_exits_with_the_code_and_one_line(tmp_path: Path) -> None:
    code, stdout, stderr = run("info", "missing.svs", cwd=tmp_path)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1

"""Ctrl-C as a terminal does it: SIGINT to the whole process group, workers included."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import warm
from support.oracle import balanced_model, textured, write_png
from support.runs import array_objects

from wsi_unet.models import UNetConfig
from wsi_unet_cli.main import cli

PROGRAM = (sys.executable, "-c", "from wsi_unet_cli.main import main; main()")
MARKERS = "out/.wsi_unet/random/blocks/*.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupt")
    image = textured(1600, 1500)
    write_png(folder / "slide.png", image)
    balanced_model(UNetConfig(depth=3, base_width=8), image[:512, :512], folder / "model")
    done = CliRunner().invoke(cli, arguments(folder, str(folder / "whole")))
    assert done.exit_code == 0, done.output
    return folder


def arguments(folder: Path, output: str, *more: str) -> list[str]:
    return ["segment", str(folder / "slide.png"), "--model", str(folder / "model"),
            "--block", "512", "--tile", "256", "--precision", "float32", "--tissue", "none",
            "--image", "none", "--output", output, *more]  # fmt: skip


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["threads", "processes"])
def test_ctrl_c_stops_the_whole_group_cleanly(
    folder: Path, tmp_path: Path, workers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    process = warm.Popen(
        [*PROGRAM, *arguments(folder, "out", *workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        deadline = time.monotonic() + 120
        while not list(Path().glob(MARKERS)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    assert "Traceback" not in stderr
    assert "KeyboardInterrupt" not in stderr
    assert "rror" not in stderr
    lines = stderr.splitlines()
    assert lines[-2] == "interrupted; what is done is kept. To resume:"
    program, *resume = shlex.split(lines[-1])
    assert program == "wsi-unet"
    assert resume == arguments(folder, "out", *workers)

    assert 1 <= len(list(Path().glob(MARKERS))) < 12
    done = CliRunner().invoke(cli, resume)
    assert done.exit_code == 0, done.output
    assert array_objects(Path("out")) == array_objects(folder / "whole")

"""A real slide with one damaged JPEG tile: its blocks fail, the rest is kept, repair completes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result
from support.oracle import balanced_model
from support.runs import array_objects

import wsi_unet
from wsi_unet.geometry import Box
from wsi_unet.models import UNetConfig
from wsi_unet.slides import open_slide
from wsi_unet_cli.main import cli

COLUMN, ROW = 3, 11
"""A tile of 240 px inside block 5.1 of 512 px, off the file's ends, which identify a slide."""

PADDING = 2 << 20


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def slide(tmp_path: Path, example_slide_path: Path) -> Path:
    """Return the example slide, long enough that its later tiles are in the middle of the file."""
    path = tmp_path / "slide.svs"
    path.write_bytes(example_slide_path.read_bytes() + bytes(PADDING))
    return path


def place_of_tile(path: Path) -> tuple[int, int]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        number = ROW * -(-page.imagewidth // page.tilewidth) + COLUMN
        return page.dataoffsets[number], page.databytecounts[number]


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_one_damaged_tile(slide: Path, tmp_path: Path) -> None:
    with open_slide(slide) as opened:
        image = opened.read(0, Box(0, 0, 512, 512))
        fingerprint = opened.fingerprint()
    balanced_model(UNetConfig(depth=1, base_width=4), image, tmp_path / "model")
    command: Callable[[str], Result] = lambda output: run(  # noqa: E731
        "segment", slide, "-m", tmp_path / "model", "-o", tmp_path / output, "--block", "512",
        "--tile", "256", "--tissue", "none", "--precision", "float32", "--image", "none",
    )  # fmt: skip
    assert command("whole").exit_code == 0

    offset, length = place_of_tile(slide)
    original = slide.read_bytes()[offset : offset + length]
    overwrite(slide, offset, bytes(length))
    with open_slide(slide) as opened:
        assert opened.fingerprint() == fingerprint, "the tile must lie off what identifies a slide"

    done = command("out")
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.stderr
    assert "block 5.1" in done.stdout
    status = run("status", tmp_path / "out")
    assert status.exit_code == 1
    assert "incomplete" in status.stdout
    assert "block 5.1" in status.stdout
    (run_of_slide,) = json.loads(run("status", tmp_path / "out", "--json").stdout)["runs"]
    assert [tuple(failure["block"]) for failure in run_of_slide["failures"]] == [(5, 1)]
    assert (run_of_slide["blocks"]["done"], run_of_slide["blocks"]["failed"]) == (29, 1)
    whole = wsi_unet.open_labels(tmp_path / "whole").values
    there = wsi_unet.open_labels(tmp_path / "out").values
    rest = np.ones(whole.shape, bool)
    rest[5 * 512 : 6 * 512, 512:1024] = False
    assert (there[rest] == whole[rest]).all()
    assert run("status", tmp_path / "out", "--verify").exit_code == 1

    overwrite(slide, offset, original)
    done = command("out")
    assert done.exit_code == 0, done.output
    assert run("status", tmp_path / "out", "--verify").exit_code == 0
    assert array_objects(tmp_path / "out") == array_objects(tmp_path / "whole")

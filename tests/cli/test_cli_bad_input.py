"""Broken files through `wsi-unet segment`: one line, the right exit code, nothing written."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file
from support import warm
from support.oracle import balanced_model, textured, write_png
from support.runs import every_file

from wsi_unet.models import UNetConfig, bundled_models
from wsi_unet_cli.main import cli

PROGRESS = (": opening", ": measuring", ": segmenting", ": finishing")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide and a model that fits it."""
    folder = tmp_path_factory.mktemp("good")
    image = textured(300, 200)
    write_png(folder / "slide.png", image)
    balanced_model(UNetConfig(depth=1, base_width=2), image, folder / "model")
    return folder


def segment(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["segment", *map(str, arguments)])


def assert_refused(done: Result, *parts: str) -> None:
    assert done.exit_code == 2, done.output
    assert_one_line(done.stderr, *parts)
    assert done.stdout == ""


def assert_one_line(stderr: str, *parts: str) -> None:
    """Assert that stderr has one line besides progress: the error, which names the cause."""
    lines = [line for line in stderr.splitlines() if not any(p in line for p in PROGRESS)]
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert "unexpected" not in lines[0]
    for part in parts:
        assert part in lines[0]


def missing(_: Path, __: Path) -> None:
    return


def empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path, _: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(1001))


def cut_early(path: Path, real: Path) -> None:
    path.write_bytes(real.read_bytes()[:700_000])


def cut_late(path: Path, real: Path) -> None:
    path.write_bytes(real.read_bytes()[:-2000])


def text(path: Path, _: Path) -> None:
    path.write_text("This is not a slide.\n" * 50)


def folder(path: Path, _: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


@pytest.mark.parametrize("make", [missing, empty, garbage, cut_early, cut_late, text, folder])
def test_files_that_arent_slides(
    good: Path,
    tmp_path: Path,
    example_slide_path: Path,
    make: Callable[[Path, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.svs", example_slide_path)
    before = every_file(tmp_path)
    assert_refused(segment("x.svs", "-m", good / "model"), "x.svs")
    assert every_file(tmp_path) == before
    assert not (tmp_path / "x.ome.zarr").exists()


def test_no_pixel_size_or_an_absurd_one(
    good: Path, tmp_path: Path, example_slide_path: Path
) -> None:
    output = tmp_path / "out"
    assert_refused(segment(good / "slide.png", "-o", output), "slide.png", "--mpp")
    for mpp in ("101", "0.019", "1e9"):
        assert_refused(segment(example_slide_path, "--mpp", mpp, "-o", output), "--mpp")
    assert not output.exists()


def wrong_keys(weights: Path) -> None:
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    tensors["nobody.knows"] = tensors.pop(name)
    save_file(tensors, weights)


def wrong_shapes(weights: Path) -> None:
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    tensors[name] = np.zeros((3, 3), np.float32)
    save_file(tensors, weights)


def not_numbers(weights: Path) -> None:
    tensors = load_file(weights)
    tensors[sorted(tensors)[0]].flat[0] = np.nan
    save_file(tensors, weights)


class Evil:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch pwned",)


def a_pickle(weights: Path) -> None:
    weights.write_bytes(pickle.dumps(Evil()))


def cut_weights(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [wrong_keys, wrong_shapes, not_numbers, a_pickle, cut_weights])
def test_files_that_arent_models(
    good: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(good / "model", tmp_path / "model")
    (weights,) = (tmp_path / "model").glob("*.safetensors")
    damage(weights)
    before = every_file(tmp_path)
    assert_refused(segment(good / "slide.png", "-m", "model", "-o", "out"), "model")
    assert every_file(tmp_path) == before
    assert not Path("out").exists()


def test_a_pickled_checkpoint_is_not_loaded(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pth").write_bytes(pickle.dumps(Evil()))
    assert_refused(segment(good / "slide.png", "-m", "model.pth", "-o", "out"), "model.pth")
    assert not Path("pwned").exists()
    assert "nuclei-he" in bundled_models()


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)], ids=["plain", "overwrite"])
def test_outputs_that_are_somebody_elses(
    good: Path, tmp_path: Path, overwrite: tuple[str, ...]
) -> None:
    array = zarr.create_array(tmp_path / "theirs", shape=(8, 8), chunks=(8, 8), dtype="u1")
    array[:] = 7
    (tmp_path / "file").write_text("a thesis")
    folder(tmp_path / "folder", tmp_path)
    before = every_file(tmp_path)
    for name in ("theirs", "file", "folder", "file/below"):
        output = tmp_path / name
        done = segment(good / "slide.png", "-m", good / "model", "-o", output, *overwrite)
        assert_refused(done, str(output))
        assert every_file(tmp_path) == before


# What root may do beyond other users, such as writing everywhere, is given up.
WITHOUT_CAPABILITIES = """
import ctypes
version_3_of_this_thread = (ctypes.c_uint32 * 2)(0x20080522, 0)
if ctypes.CDLL(None).capset(version_3_of_this_thread, (ctypes.c_uint32 * 6)()):
    raise OSError("capset")
from wsi_unet_cli.main import main
main()
"""


@pytest.mark.parametrize("slides", [["slide.png"], ["slide.png", "other.png"]], ids=["one", "two"])
@pytest.mark.parametrize("output", ["locked", "locked/new"])
def test_an_output_that_may_not_be_written(
    good: Path, tmp_path: Path, output: str, slides: list[str]
) -> None:
    folder = shutil.copytree(good, tmp_path / "public")
    (folder / "locked").mkdir(mode=0o555)
    before = every_file(folder)
    done = warm.run(
        [sys.executable, "-c", WITHOUT_CAPABILITIES,
         "segment", *(str(folder / slide) for slide in slides),
         "-m", str(folder / "model"), "--image", "none", "-o", str(folder / output)],
        capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert_one_line(done.stderr, "locked")
    assert done.stdout == ""
    assert every_file(folder) == before
    assert not list((folder / "locked").iterdir())

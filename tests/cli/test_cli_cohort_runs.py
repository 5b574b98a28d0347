"""Cohorts of tiny real slides from start to end: results, reruns, kills, bad input, S3."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tifffile
from click.testing import CliRunner, Result
from support import warm
from support.oracle import balanced_model, textured
from support.runs import array_objects, every_file, marker_times
from support.s3_server import S3Server

from wsi_unet.models import UNetConfig
from wsi_unet_cli.main import cli

PROGRAM = (sys.executable, "-c", "from wsi_unet_cli.main import main; main()")
SHAPES = {"a": (700, 600), "sub/b": (1100, 520), "sub/c": (512, 512), "d": (900, 1300)}
BLOCKS = {"a": 4, "b": 6, "c": 1, "d": 6}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return four slides in a folder, a model, and an undisturbed run in `whole`."""
    folder = tmp_path_factory.mktemp("cohort")
    for number, (name, shape) in enumerate(SHAPES.items()):
        path = folder / "slides" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = textured(*shape, seed=number)
        tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb")
    balanced_model(UNetConfig(depth=3, base_width=8), pixels[:512, :512], folder / "model")
    assert segment(folder, folder / "slides", "-o", folder / "whole").exit_code == 0
    return folder


@pytest.fixture
def here(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a new folder with the slides."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(good / "slides", tmp_path / "slides")
    return tmp_path


def arguments(good: Path, *more: str | Path) -> list[str]:
    return ["segment", *map(str, more), "--model", str(good / "model"), "--block", "512",
            "--tile", "128", "--precision", "float32", "--tissue", "none", "--image", "none",
            ]  # fmt: skip


def segment(good: Path, *more: str | Path) -> Result:
    return CliRunner().invoke(cli, arguments(good, *more))


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of cohort.json by slide."""
    document = json.loads((folder / "cohort.json").read_bytes())
    return {Path(row["slide"]).stem: row for row in document["slides"]}


def statuses(folder: Path) -> dict[str, str]:
    return {name: row["status"] for name, row in rows(folder).items()}


def same_results(folder: Path, good: Path) -> bool:
    """Return whether all arrays, and areas in the report, are those of the undisturbed run."""
    mine, theirs = rows(folder), rows(good / "whole")
    return mine.keys() == theirs.keys() and all(
        mine[name]["classes"] == theirs[name]["classes"]
        and array_objects(folder / f"{name}.ome.zarr")
        == array_objects(good / "whole" / f"{name}.ome.zarr")
        for name in theirs
    )


def test_a_folder_from_start_to_end(good: Path, here: Path) -> None:
    found = rows(good / "whole")
    assert {name: row["blocks"]["done"] for name, row in found.items()} == BLOCKS
    for name, shape in SHAPES.items():
        classes = found[Path(name).stem]["classes"]
        assert sum(one["pixels"] for one in classes) == shape[0] * shape[1]
    assert not (good / "whole" / ".wsi_unet").exists(), "the lock leaves nothing behind"
    done = segment(good, "slides/sub/b.tif", "-o", "alone")
    assert done.exit_code == 0, done.output
    assert array_objects(Path("alone")) == array_objects(good / "whole" / "b.ome.zarr")


def test_a_manifest_with_a_bad_slide_and_a_rerun_that_does_what_is_left(
    good: Path, here: Path
) -> None:
    """The rerun finds the slide mended, and touches nothing of what was finished."""
    (here / "slides/sub/c.tif").write_bytes(b"torn")
    (here / "list.csv").write_text(
        "slide,output,mpp,patient\n"
        "slides/a.tif,,,P-1\n"
        "slides/sub/b.tif,out/other/b.ome.zarr,0.5,P-2\n"
        "slides/sub/c.tif,,,P-3\n"
        "slides/gone.tif,,,P-4\n"
    )
    done = segment(good, "list.csv", "-o", here / "out")
    assert done.exit_code == 1, done.output
    assert statuses(here / "out") == {
        "a": "finished", "b": "finished", "c": "failed", "gone": "failed",
    }  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert not (here / "out/c.ome.zarr").exists()
    first = rows(here / "out")
    before = marker_times(here / "out/a.ome.zarr")

    shutil.copy(good / "slides/sub/c.tif", here / "slides/sub/c.tif")
    shutil.copy(good / "slides/d.tif", here / "slides/gone.tif")
    program, *again = shlex.split(done.stderr.splitlines()[-1])
    assert program == "wsi-unet"
    done = CliRunner().invoke(cli, again)
    assert done.exit_code == 0, done.output
    second = rows(here / "out")
    assert set(statuses(here / "out").values()) == {"finished"}
    assert marker_times(here / "out/a.ome.zarr") == before
    assert second["a"]["seconds"] == first["a"]["seconds"] > 0
    assert second["a"]["blocks"]["resumed"] == 4
    with (here / "out/cohort.csv").open(newline="") as file:
        table = {Path(row["slide"]).stem: row for row in csv.DictReader(file)}
    assert [row["patient"] for row in table.values()] == ["P-1", "P-2", "P-3", "P-4"]
    assert float(table["b"]["area_mm2:class-1"]) == pytest.approx(
        int(table["b"]["pixels:class-1"]) * 0.5**2 / 1e6
    )
    assert table["a"]["area_mm2:class-1"] == "", "its pixel size is unknown"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_in_the_middle_and_run_again(good: Path, here: Path, number: signal.Signals) -> None:
    command = arguments(good, "slides", "-o", "out")
    with warm.Popen(
        [*PROGRAM, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while len(list(here.glob("out/*/.wsi_unet/random/blocks/*.json"))) < 6:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
    assert list(rows(here / "out")) == ["a", "d", "b", "c"], "every slide has its row"
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 1, stderr
        assert "Traceback" not in stderr
        document = json.loads((here / "out/cohort.json").read_bytes())
        assert document["state"] == "interrupted"
        assert set(statuses(here / "out").values()) <= {"finished", "interrupted", "waiting"}
        assert shlex.split(stderr.splitlines()[-1]) == ["wsi-unet", *command]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert set(statuses(here / "out").values()) == {"finished"}
    assert same_results(here / "out", good)


def test_a_plan_writes_nothing_and_lists_what_is_bad(good: Path, here: Path) -> None:
    (here / "slides/bad.svs").write_bytes(b"x" * 300)
    before = every_file(here)
    done = segment(good, "slides", "-o", "out", "--plan")
    assert done.exit_code == 1
    assert "d.tif: 6 blocks, 6 with tissue, about" in done.stdout
    assert "4 of 5 slides planned, nothing written" in done.stdout
    assert "blocks          17" in done.stdout
    assert [line for line in done.stderr.splitlines() if "bad.svs" in line]
    done = segment(good, "slides", "-o", "out", "--plan", "--json")
    document = json.loads(done.stdout)
    assert document["exit_code"] == done.exit_code == 1
    assert document["totals"]["blocks"] == 17
    assert [slide["state"] for slide in document["slides"]] == [
        "planned",
        "failed",
        *["planned"] * 3,
    ]
    assert every_file(here) == before
    assert not (here / "out").exists()


def nowhere(here: Path) -> list[str]:
    (here / "file").write_text("a thesis")
    return ["slides", "-o", "file/out"]


def a_file(here: Path) -> list[str]:
    (here / "file").write_text("a thesis")
    return ["slides", "-o", "file"]


def two_places(here: Path) -> list[str]:
    return ["slides", "elsewhere/a.tif", "-o", "out"]


def no_manifest(here: Path) -> list[str]:
    (here / "m.csv").write_text("path,model\nslides/a.tif,\n")
    return ["m.csv", "-o", "out"]


def no_scheduler(here: Path) -> list[str]:
    return ["slides", "-o", "out", "--scheduler", "tcp://nobody.invalid:8786"]


def no_certificate(here: Path) -> list[str]:
    (here / "ca.pem").write_text("not a certificate")
    return ["slides", "-o", "out", "--scheduler", "tls://127.0.0.1:1", "--tls-ca", "ca.pem"]


@pytest.mark.parametrize(
    "make", [nowhere, a_file, two_places, no_manifest, no_scheduler, no_certificate]
)
def test_what_is_refused_before_the_start_is_one_line_and_changes_nothing(
    good: Path, here: Path, make: Callable[[Path], list[str]]
) -> None:
    given = make(here)
    before = every_file(here)
    done = segment(good, *given)
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "unexpected" not in done.stderr
    assert done.stdout == ""
    assert every_file(here) == before
    assert not (here / "out").exists()


def test_a_cohort_in_an_object_store(good: Path, here: Path, bucket: str) -> None:
    """Slides, manifest, results and report are objects; the rerun finds everything done."""
    from wsi_unet.storage.opening import open_store

    store = open_store(f"{bucket}/lists")
    for name in ("a", "sub/c"):
        store.put(f"slides/{name}.tif", (good / "slides" / f"{name}.tif").read_bytes())
    store.put("m.csv", b"slide,patient\nslides/a.tif,P-1\nslides/sub/c.tif,P-2\n")
    for given in ("m.csv", "slides/", "slides/**/*.tif"):
        done = segment(good, f"{bucket}/lists/{given}", "-o", f"{bucket}/out")
        assert done.exit_code == 0, done.output
    out = open_store(f"{bucket}/out")
    document = json.loads(out.get("cohort.json") or b"")
    found = {Path(row["slide"]).stem: row for row in document["slides"]}
    undisturbed = rows(good / "whole")
    for name in ("a", "c"):
        assert found[name]["classes"] == undisturbed[name]["classes"]
        assert found[name]["blocks"]["resumed"] == BLOCKS[name]
    assert out.get(".wsi_unet/lock.json") is None
    done = CliRunner().invoke(cli, ["status", f"{bucket}/out/a.ome.zarr"])
    assert done.exit_code == 0, done.output


def test_a_bucket_that_is_forbidden_is_one_line(
    good: Path, here: Path, bucket: str, s3: S3Server
) -> None:
    before = every_file(here)
    with s3.checking_credentials():
        for given in (["slides", "-o", f"{bucket}/out"], [f"{bucket}/slides/", "-o", "out"]):
            done = segment(good, *given)
            assert done.exit_code == 2, done.output
            assert len(done.stderr.splitlines()) == 1, done.stderr
            assert bucket in done.stderr
    assert every_file(here) == before
    assert not (here / "out").exists()


def test_a_bucket_that_is_not_there_is_one_line(good: Path, here: Path, bucket: str) -> None:
    before = every_file(here)
    for given in (["slides", "-o", f"{bucket}-not/out"], [f"{bucket}-not/slides/", "-o", "out"]):
        done = segment(good, *given)
        assert done.exit_code == 2, done.output
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert f"{bucket}-not" in done.stderr
        assert every_file(here) == before
    assert not (here / "out").exists()
    assert [path.name for path in here.iterdir()] == ["slides"]

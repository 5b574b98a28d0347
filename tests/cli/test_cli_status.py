"""`wsi-unet status` of a result and of a folder of results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.oracle import balanced_model, textured, write_png
from support.runs import OPTIONS, array_objects, every_file

import wsi_unet
from wsi_unet.models import UNetConfig
from wsi_unet.storage.locking.lock import acquire
from wsi_unet.storage.opening import open_store
from wsi_unet_cli.main import cli


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def document(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return three slides of which the last is bad, and their cohort in `out`."""
    folder = tmp_path_factory.mktemp("status")
    image = textured(600, 700)
    for name in ("a", "b"):
        write_png(folder / f"{name}.png", image)
    (folder / "c.png").write_bytes(b"no picture")
    balanced_model(UNetConfig(depth=1, base_width=2), image, folder / "model")
    done = run("segment", *(folder / f"{name}.png" for name in "abc"), "-m", folder / "model",
               "--block", "512", "--tissue", "none", "-o", folder / "out")  # fmt: skip
    assert done.exit_code == 1
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the cohort's results, with a report that knows them there."""
    out = tmp_path / "out"
    shutil.copytree(made / "out", out)
    report = out / "cohort.json"
    report.write_bytes(report.read_bytes().replace(bytes(made / "out"), bytes(out)))
    return out


def test_a_result_says_how_fast_it_was_and_who_writes(out: Path) -> None:
    done = run("status", out / "a.ome.zarr")
    assert done.exit_code == 0, done.output
    assert "blocks/s" in done.stdout
    assert "device" in done.stdout
    assert "being written" not in done.stdout
    with acquire(open_store(out / "a.ome.zarr")):
        done = run("status", out / "a.ome.zarr")
        shown = document("status", out / "a.ome.zarr")
    assert "being written by process" in done.stdout
    assert shown["writer"]["alive"]
    assert shown["runs"][0]["blocks_per_s"] > 0


def test_a_folder_has_a_line_for_each_result_and_totals(out: Path) -> None:
    before = every_file(out)
    done = run("status", out)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("a.ome.zarr: finished, 4 of 4 blocks, ")
    assert lines[1].startswith("b.ome.zarr: finished")
    assert lines[2].startswith("c.ome.zarr: failed, ")
    assert "c.png" in lines[2]
    assert "slides    2 finished, 1 failed" in done.stdout
    assert "blocks    8 of 8 done" in done.stdout
    assert "device" in done.stdout
    shown = document("status", out)
    assert [one["state"] for one in shown["outputs"]] == ["finished", "finished", "failed"]
    assert shown["totals"]["slides"] == {"finished": 2, "failed": 1}
    assert shown["totals"]["blocks"] == {"total": 8, "done": 8, "failed": 0}
    assert shown["cohort"]["counts"] == {"finished": 2, "failed": 1}
    assert shown["cohort"]["progress"]["blocks_per_s"] > 0
    assert shown["writer"] is None
    assert every_file(out) == before


def test_a_folder_without_a_report_is_looked_through(out: Path) -> None:
    (out / "deep").mkdir()
    (out / "b.ome.zarr").rename(out / "deep" / "b.ome.zarr")
    for name in ("cohort.json", "cohort.csv"):
        (out / name).unlink()
    done = run("status", out)
    assert done.exit_code == 0, done.output
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:2]] == [
        "a.ome.zarr",
        "b.ome.zarr",
    ]
    assert document("status", out)["cohort"] is None


def test_what_the_report_does_not_know_is_found_too(out: Path) -> None:
    image = textured(300, 200)
    slide = write_png(out.parent / "extra.png", image)
    model, _ = balanced_model(UNetConfig(depth=1, base_width=2), image, out.parent / "model")
    report = wsi_unet.segment(slide, out / "extra.ome.zarr", model.path, **OPTIONS)
    assert report.state == "finished"
    assert "extra.ome.zarr: finished" in run("status", out).stdout


def test_the_report_is_not_believed_about_what_has_changed(out: Path) -> None:
    """A result that was removed, one that lost a block, and who is at work there."""
    shutil.rmtree(out / "a.ome.zarr")
    next((out / "b.ome.zarr/.wsi_unet/random/blocks").iterdir()).unlink()
    assert "b.ome.zarr: finished" in run("status", out).stdout, "it says so itself"
    group = out / "b.ome.zarr/labels/random/zarr.json"
    attributes = json.loads(group.read_bytes())
    attributes["attributes"]["wsi_unet"]["finished"] = None
    group.write_text(json.dumps(attributes))
    with acquire(open_store(out / "b.ome.zarr")), acquire(open_store(out)):
        lines = run("status", out).stdout.splitlines()
    assert lines[0] == "a.ome.zarr: waiting"
    assert lines[1].startswith("b.ome.zarr: unfinished, 3 of 4 blocks")
    assert "being written by process" in lines[1]
    assert lines[-1].startswith("being written by process")


def test_verify_reads_everything_of_every_result(out: Path) -> None:
    shard = next(
        path for path in (out / "b.ome.zarr/labels/random/0/c").rglob("*") if path.is_file()
    )
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data)
    whole = array_objects(out / "a.ome.zarr")
    assert "b.ome.zarr: finished" in run("status", out).stdout
    done = run("status", out, "--verify")
    assert done.exit_code == 1
    assert "a.ome.zarr: finished" in done.stdout
    assert "b.ome.zarr: unfinished, 3 of 4 blocks" in done.stdout
    assert array_objects(out / "a.ome.zarr") == whole
    assert "b.ome.zarr: finished" in run("status", out).stdout
    alone = run("status", out / "b.ome.zarr", "--verify")
    assert "--verify --forget" in alone.stdout
    assert run("status", out, "--verify", "--forget").exit_code == 1
    assert "b.ome.zarr: unfinished, 3 of 4 blocks" in run("status", out).stdout


def test_forgetting_needs_to_know_the_damage_and_that_nobody_writes(out: Path) -> None:
    done = run("status", out, "--forget")
    assert (done.exit_code, "needs --verify" in done.stderr) == (2, True)
    with acquire(open_store(out / "b.ome.zarr")):
        done = run("status", out / "b.ome.zarr", "--verify", "--forget")
    assert (done.exit_code, "is being written by" in done.stderr) == (1, True)


def test_an_empty_folder_holds_no_results(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    done = run("status", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1

"""Crashes, damage and reruns: what was done stays done, what wasn't is done again, to the byte."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.oracle import balanced_model, textured, write_png

import wsi_unet
from wsi_unet.errors import SignatureError
from wsi_unet.labels.objects import open_objects
from wsi_unet.labels.progress import Progress
from wsi_unet.models import UNetConfig
from wsi_unet.segment.status import run_status
from wsi_unet.segment.task import Run, Task, run_task

SHAPE = (1700, 1300)
BLOCKS = 4 * 3
OPTIONS: dict[str, Any] = {
    "tissue": "none",
    "precision": "float32",
    "device": "cpu",
    "block": 512,
    "tile": 128,
}


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return textured(*SHAPE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, image: NDArray[np.uint8]) -> Path:
    """A slide, two models, and what an undisturbed run makes of the first."""
    folder = tmp_path_factory.mktemp("resume")
    write_png(folder / "slide.png", image)
    config = UNetConfig(depth=2, base_width=4)
    balanced_model(config, image, folder / "model")
    balanced_model(config, image, folder / "other", seed=1)
    report = run(folder, folder / "whole")
    assert report.state == "finished"
    return folder


def run(folder: Path, output: Path, model: str = "model", **options: Any) -> wsi_unet.Report:
    return wsi_unet.segment(folder / "slide.png", output, folder / model, **(OPTIONS | options))


def array_objects(output: Path) -> dict[str, str]:
    """Return the hash of every stored shard and array document, progress left out."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".wsi_unet" not in path.parts and path.parent.name != "random"
        and path != output / "zarr.json"
    }  # fmt: skip


def marker_times(output: Path) -> dict[str, int]:
    return {
        path.name: path.stat().st_mtime_ns
        for path in (output / ".wsi_unet" / "random" / "blocks").glob("*.json")
    }


SCRIPT = """
import sys, json
import wsi_unet
slide, output, model, options = sys.argv[1:5]
wsi_unet.segment(slide, output, model, **json.loads(options))
"""


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_the_rerun_does_only_the_rest(
    folder: Path, tmp_path: Path, seed: int
) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder / "slide.png"), str(output),
         str(folder / "model"), json.dumps(OPTIONS)],
    )  # fmt: skip
    wanted = random.Random(seed).randint(1, BLOCKS - 3)
    deadline = time.monotonic() + 120
    while len(marker_times(output)) < wanted:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(random.Random(seed).random() * 0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    before = marker_times(output)
    assert len(before) > 0
    report = run(folder, output)
    assert report.state == "finished"
    assert report.blocks.resumed == len(before)
    assert {name: time for name, time in marker_times(output).items() if name in before} == before
    assert array_objects(output) == array_objects(folder / "whole")
    assert report.classes == run(folder, folder / "whole").classes


def test_a_finished_run_computes_nothing(folder: Path) -> None:
    before = marker_times(folder / "whole")
    report = run(folder, folder / "whole")
    assert report.state == "finished"
    assert report.blocks.resumed == report.blocks.total == BLOCKS
    assert marker_times(folder / "whole") == before


@pytest.mark.parametrize("shard", ["labels/random/0/c/0/0", "labels/random/0/c/3/2"])
@pytest.mark.parametrize("damage", ["torn", "deleted", "empty"])
def test_damaged_shards_are_computed_again(
    folder: Path, tmp_path: Path, shard: str, damage: str
) -> None:
    """One full shard and one at the slide's corner."""
    output = tmp_path / "out"
    run(folder, output)
    path = output / shard
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 100 if damage == "torn" else 0])
    assert run_status(output)[0].state == "unfinished"
    report = run(folder, output)
    assert report.blocks.resumed == BLOCKS - 1
    assert array_objects(output) == array_objects(folder / "whole")


def test_only_checksums_find_silent_damage(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(folder, output)
    path = output / "labels/random/0/c/1/1"
    data = bytearray(path.read_bytes())
    data[20] ^= 0xFF
    path.write_bytes(data)
    assert run_status(output)[0].state == "finished"
    status = run_status(output, verify=True)[0]
    assert status.state == "unfinished"
    assert status.damaged == ((1, 1),)
    assert wsi_unet.open_labels(output).attrs["finished"] is None
    assert run(folder, output).blocks.resumed == BLOCKS - 1
    assert array_objects(output) == array_objects(folder / "whole")
    assert wsi_unet.open_labels(output).attrs["finished"] is not None


def test_damage_to_the_small_levels_is_repaired(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(folder, output)
    (output / "labels/random/2/c/0/0").unlink()
    report = run(folder, output)
    assert report.blocks.resumed == BLOCKS
    assert array_objects(output) == array_objects(folder / "whole")


def test_the_same_block_in_two_processes_one_killed(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(folder, output)
    progress = Progress(open_objects(output), "random")
    record = progress.read_run()
    assert record is not None
    task = Task(Run(str(output), "random", str(record.resolved["run_id"])), (1, 1))
    script = f"""
import sys
from wsi_unet.segment.task import Run, Task, run_task
from wsi_unet.labels.objects import open_objects
from wsi_unet.labels.progress import Progress
print("ready", flush=True)
for _ in range(200):
    Progress(open_objects({str(output)!r}), "random").forget((1, 1))
    run_task(Task(Run({str(output)!r}, "random", "other"), (1, 1)))
"""
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    for _ in range(4):
        progress.forget((1, 1))
        run_task(task)
    other.kill()
    other.wait()
    other.stdout.close()
    report = run(folder, output)
    assert report.state == "finished"
    assert array_objects(output) == array_objects(folder / "whole")
    assert run_status(output, verify=True)[0].state == "finished"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"model": "other"}, "model"),
        ({"outputs": ("labels", "probabilities")}, "outputs"),
        ({"precision": "bfloat16"}, "precision"),
        ({"block": 1024}, "block"),
        ({"tissue": "auto"}, "tissue"),
    ],
)
def test_another_run_is_refused_by_name_and_changes_nothing(
    folder: Path, change: dict[str, Any], names: str
) -> None:
    before = array_objects(folder / "whole"), marker_times(folder / "whole")
    with pytest.raises(SignatureError, match=rf"another {names} .*--overwrite"):
        run(folder, folder / "whole", **change)
    assert (array_objects(folder / "whole"), marker_times(folder / "whole")) == before


def test_float32_may_resume_with_another_tile(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(folder, output, region=(0, 0, 600, 600))
    report = run(folder, output, tile=256)
    assert report.state == "finished"
    assert report.blocks.resumed == 4


def test_another_slide_is_refused(folder: Path, tmp_path: Path) -> None:
    slide = write_png(tmp_path / "other.png", textured(*SHAPE, seed=5))
    with pytest.raises(SignatureError, match=r"holds another slide \(slide.png\)"):
        wsi_unet.segment(slide, folder / "whole", folder / "model", **OPTIONS)


def test_overwrite_replaces(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(folder, output, "other")
    report = run(folder, output, overwrite=True)
    assert report.blocks.resumed == 0
    assert array_objects(output) == array_objects(folder / "whole")


def test_regions_grow_into_the_whole(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = run(folder, output, region=(700, 100, 10, 10))
    assert (first.blocks.total, first.blocks.done) == (1, 1)
    second = run(folder, output, region=(100, 1200, 500, 400))
    assert (second.blocks.total, second.blocks.resumed) == (5, 1)
    whole = run(folder, output)
    assert (whole.blocks.total, whole.blocks.resumed) == (BLOCKS, 5)
    assert array_objects(output) == array_objects(folder / "whole")


def test_an_all_background_slide_resumes_without_computing(tmp_path: Path, folder: Path) -> None:
    """Empty shards are stored as nothing, and yet are known to be done."""
    slide = write_png(tmp_path / "white.png", np.full((*SHAPE, 3), 255, np.uint8))
    output = tmp_path / "out"
    options = OPTIONS | {"tissue": "auto", "image": "none"}
    first = wsi_unet.segment(slide, output, folder / "model", **options)
    assert first.state == "finished"
    assert first.blocks.empty == BLOCKS
    assert not list((output / "labels/random/0").glob("c/*"))
    before = marker_times(output)
    again = wsi_unet.segment(slide, output, folder / "model", **options)
    assert again.blocks.resumed == BLOCKS
    assert marker_times(output) == before

"""Crashes, damage and reruns: finished blocks are kept, others are computed, to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import warm
from support.oracle import write_png
from support.runs import OPTIONS, Study, array_objects, every_file, marker_times

import wsi_unet
from wsi_unet.segmentation.status import run_status

SCRIPT = """
import sys, json
import wsi_unet
slide, output, model, options = sys.argv[1:5]
wsi_unet.segment(slide, output, model, **json.loads(options))
"""


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_the_rerun_does_only_the_rest(
    study: Study, tmp_path: Path, seed: int
) -> None:
    output = tmp_path / "out"
    process = warm.Popen(
        [sys.executable, "-c", SCRIPT, str(study.slide), str(output),
         str(study.folder / "model"), json.dumps(OPTIONS)],
    )  # fmt: skip
    wanted = random.Random(seed).randint(1, study.blocks - 3)
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
    report = study.run(output)
    assert report.state == "finished"
    assert report.blocks.resumed == len(before)
    assert {name: time for name, time in marker_times(output).items() if name in before} == before
    assert array_objects(output) == array_objects(study.whole)
    assert report.classes == study.run(study.whole).classes


def test_a_finished_run_computes_nothing(study: Study) -> None:
    before = marker_times(study.whole)
    report = study.run(study.whole)
    assert report.state == "finished"
    assert report.blocks.resumed == report.blocks.total == study.blocks
    assert marker_times(study.whole) == before


def test_a_rerun_of_a_finished_output_changes_no_file(study: Study, tmp_path: Path) -> None:
    """Neither pixels nor metadata nor progress: it can be read-only, mirrored or backed up."""
    output = study.finished(tmp_path / "out")
    before = every_file(output)
    assert len(before) > 2 * study.blocks
    assert study.run(output).state == "finished"
    assert every_file(output) == before


@pytest.mark.parametrize("shard", ["labels/random/0/c/0/0", "labels/random/0/c/3/2"])
@pytest.mark.parametrize("damage", ["torn", "deleted", "empty"])
def test_damaged_shards_are_computed_again(
    study: Study, tmp_path: Path, shard: str, damage: str
) -> None:
    """One full shard and one at the slide's corner."""
    output = study.finished(tmp_path / "out")
    path = output / shard
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 100 if damage == "torn" else 0])
    assert run_status(output)[0].state == "unfinished"
    report = study.run(output)
    assert report.blocks.resumed == study.blocks - 1
    assert array_objects(output) == array_objects(study.whole)


def test_only_checksums_find_silent_damage(study: Study, tmp_path: Path) -> None:
    output = study.finished(tmp_path / "out")
    path = output / "labels/random/0/c/1/1"
    data = bytearray(path.read_bytes())
    data[20] ^= 0xFF
    path.write_bytes(data)
    assert run_status(output)[0].state == "finished"
    before = every_file(output)
    for _ in range(2):
        status = run_status(output, verify=True)[0]
        assert status.state == "unfinished"
        assert status.damaged == ((1, 1),)
    assert every_file(output) == before
    assert study.run(output).blocks.resumed == study.blocks
    assert run_status(output, verify=True, forget=True)[0].damaged == ((1, 1),)
    assert wsi_unet.open_labels(output).attrs["finished"] is None
    assert study.run(output).blocks.resumed == study.blocks - 1
    assert array_objects(output) == array_objects(study.whole)
    assert wsi_unet.open_labels(output).attrs["finished"] is not None


@pytest.mark.parametrize("key", ["labels/random/2/c/0/0", "1/c/0/0/0"])
def test_damage_to_the_small_levels_is_repaired(study: Study, tmp_path: Path, key: str) -> None:
    output = study.finished(tmp_path / "out")
    (output / key).unlink()
    found = run_status(output)
    assert {status.state for status in found} == {"finished", "unfinished"}
    (unfinished,) = (status for status in found if status.state == "unfinished")
    told = unfinished.blocks.left or unfinished.missing
    assert told in (1, "the small levels are missing or damaged")
    report = study.run(output)
    assert report.blocks.resumed == study.blocks
    assert array_objects(output) == array_objects(study.whole)
    assert {status.state for status in run_status(output)} == {"finished"}


def test_an_all_background_slide_resumes_without_computing(tmp_path: Path, study: Study) -> None:
    """Empty shards are stored as nothing, and yet are known to be done."""
    slide = write_png(tmp_path / "white.png", np.full((1700, 1300, 3), 255, np.uint8))
    output = tmp_path / "out"
    options = OPTIONS | {"tissue": "auto", "image": "none"}
    first = wsi_unet.segment(slide, output, study.folder / "model", **options)
    assert first.state == "finished"
    assert first.blocks.empty == study.blocks
    assert not list((output / "labels/random/0").glob("c/*"))
    before = marker_times(output)
    again = wsi_unet.segment(slide, output, study.folder / "model", **options)
    assert again.blocks.resumed == study.blocks
    assert marker_times(output) == before


def test_a_plan_says_what_is_left(study: Study, tmp_path: Path) -> None:
    output = study.finished(tmp_path / "out")
    before = every_file(output)
    done = study.plan(output)
    assert len(done.done) == len(done.labels.blocks())
    assert done.seconds_left == 0
    (output / "labels/random/0/c/1/1").unlink()
    left = study.plan(output)
    assert {*left.labels.blocks()} - left.done == {(1, 1)}
    assert left.costs.seconds is not None
    assert left.seconds_left == pytest.approx(left.costs.seconds / len(left.costs.tissue))
    before.pop("labels/random/0/c/1/1")
    assert every_file(output) == before
    assert not study.plan(tmp_path / "new").done


def test_status_says_that_metadata_is_damaged(study: Study, tmp_path: Path) -> None:
    output = study.finished(tmp_path / "out")
    (output / "labels/random/zarr.json").write_text("{")
    labels = run_status(output)[0]
    assert (labels.state, labels.blocks.left) == ("unfinished", 0)
    assert labels.missing == "metadata (zarr.json) is missing or damaged"
    study.run(output)
    assert run_status(output)[0].missing == ""
    assert array_objects(output) == array_objects(study.whole)


def test_a_store_without_checksums_is_read_and_resumed(study: Study, tmp_path: Path) -> None:
    """Earlier versions wrote chunks without them, and said so in the arrays' metadata."""
    output = study.finished(tmp_path / "out")
    for path in output.rglob("zarr.json"):
        text = path.read_text()
        path.write_text(text.replace('"checksum": true', '"checksum": false'))
    changed = [p for p in output.rglob("zarr.json") if '"checksum": false' in p.read_text()]
    assert len(changed) > 2
    assert {status.state for status in run_status(output, verify=True)} == {"finished"}
    whole = wsi_unet.open_labels(study.whole).to_numpy()
    assert np.array_equal(wsi_unet.open_labels(output).to_numpy(), whole)
    (output / "labels/random/0/c/1/1").unlink()
    assert study.run(output).blocks.resumed == study.blocks - 1
    assert np.array_equal(wsi_unet.open_labels(output).to_numpy(), whole)

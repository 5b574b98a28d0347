"""SIGKILL at the worst moments: within a write, laying out, removing, finishing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import kill_points, warm
from support.oracle import balanced_model, textured, write_png
from support.runs import OPTIONS, Study, array_objects, temporaries

from wsi_unet.labels.progress import Progress
from wsi_unet.models import UNetConfig
from wsi_unet.segmentation.status import run_status
from wsi_unet.segmentation.worker.task import Run, Task, run_task
from wsi_unet.storage.opening import open_store

KILLS = 6
TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_wherever_it_changes_the_disk_the_rerun_finishes(
    study: Study, tmp_path: Path, overwrite: bool
) -> None:
    """Laying out, building the small levels and finishing; with --overwrite, removing."""
    image = textured(1100, 520)
    slide = write_png(tmp_path / "slide.png", image)
    start = None
    if overwrite:
        start = str(study.finished(tmp_path / "start"))
    model = balanced_model(UNetConfig(depth=1, base_width=4), image, tmp_path / "model")[0].path
    done = run_kill_points(
        slide=str(slide), model=str(model), folder=str(tmp_path), start=start, kills=KILLS,
        options=OPTIONS | {"tissue": "auto", "overwrite": overwrite},
    )  # fmt: skip
    assert done["changes"] > 2 * KILLS
    assert len(done["found"]) >= KILLS
    for found in done["found"]:
        assert found == {
            "fatal": found["fatal"],
            "killed": True,
            "state": "finished",
            "verified": ["finished"],
            "differing": [],
            "left": [],
        }


def run_kill_points(**job: Any) -> dict[str, Any]:
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = warm.run(
        [sys.executable, kill_points.__file__, json.dumps(job)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


STUCK = """
import os, sys
from wsi_unet.segmentation.worker.task import Run, Task, run_task

truncate, output, signature = sys.argv[1] == "half", sys.argv[2], sys.argv[3]
fsync = os.fsync

def stop_in_the_middle(file):
    os.fsync = fsync
    if truncate:
        os.ftruncate(file, os.fstat(file).st_size // 2)
    print(os.readlink(f"/proc/self/fd/{file}"), flush=True)
    sys.stdin.readline()
    fsync(file)

os.fsync = stop_in_the_middle
run_task(Task(Run(output, "random", signature, "another"), (1, 1)))
"""


@contextmanager
def stuck_in_the_middle_of_a_write(
    how: str, output: Path, signature: str
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Yield another process that has written (half of) the temporary of block 1.1's shard."""
    process = warm.Popen(
        [sys.executable, "-c", STUCK, how, str(output), signature],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.mark.parametrize("how", ["half", "whole"])
def test_the_same_block_in_two_processes_one_killed_in_the_middle_of_its_write(
    study: Study, tmp_path: Path, how: str
) -> None:
    output = study.finished(tmp_path / "out")
    progress, task = forgotten_block(output)
    size = (output / "labels/random/0/c/1/1").stat().st_size
    with stuck_in_the_middle_of_a_write(how, output, task.run.signature) as (other, temporary):
        assert temporaries(output) == [temporary]
        assert temporary.stat().st_size == (size // 2 if how == "half" else size)
        run_task(task)
        open_store(output).remove_leftovers()
        assert temporaries(output) == [temporary], "a living writer's file was taken away"
        other.kill()
        other.wait()
    assert array_objects(output) == array_objects(study.whole)
    assert progress.read_marker((1, 1), task.run.signature) is not None
    assert run_status(output, verify=True)[0].state == "finished"

    progress.forget_block((2, 1))
    report = study.run(output)
    assert report.state == "finished"
    assert report.blocks.resumed == study.blocks - 1
    assert temporaries(output) == []
    assert array_objects(output) == array_objects(study.whole)


def test_the_same_block_in_two_processes_that_both_end(study: Study, tmp_path: Path) -> None:
    """The slower one replaces each object by the same bytes, under the readers' eyes."""
    output = study.finished(tmp_path / "out")
    _, task = forgotten_block(output)
    with stuck_in_the_middle_of_a_write("whole", output, task.run.signature) as (other, _):
        run_task(task)
        inode = (output / "labels/random/0/c/1/1").stat().st_ino
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.wait(timeout=60) == 0
    assert (output / "labels/random/0/c/1/1").stat().st_ino != inode, "the other never wrote"
    assert temporaries(output) == []
    assert array_objects(output) == array_objects(study.whole)
    assert run_status(output, verify=True)[0].state == "finished"


def forgotten_block(output: Path) -> tuple[Progress, Task]:
    """Forget that block 1.1 is done, and return its task in the run that is stored."""
    progress = Progress(open_store(output), "random")
    record = progress.read_run()
    assert record is not None
    progress.forget_block((1, 1))
    return progress, Task(Run(str(output), "random", record.signature, "this"), (1, 1))


@pytest.mark.parametrize("moment", ["before", "half way", "after"])
def test_killed_while_the_image_is_laid_out_the_rerun_stores_it(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A started image must not be taken for a missing one, nor for a finished one."""
    from wsi_unet.labels import layout

    output = tmp_path / "out"
    create_image, create_labels = layout.create_image, layout.create_labels

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    def die_half_way(*arguments: Any) -> None:
        create_image(*arguments)
        (output / "0/zarr.json").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(
            layout,
            "create_image",
            {"before": die, "half way": die_half_way}.get(moment, create_image),
        )
        patch.setattr(layout, "create_labels", die if moment == "after" else create_labels)
        with pytest.raises(Killed):
            study.run(output)
    assert study.run(output).state == "finished"
    assert [status.label for status in run_status(output)] == ["random", "image"]
    assert array_objects(output) == array_objects(study.whole)

"""The SLURM recipe on a real one-node SLURM: preempted, out of time, refused, one GPU each."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from trial import OPTIONS, Job, Slurm, arrays, markers, one_node, sound, undisturbed

CHOICES = (*OPTIONS, "--region", "0,0,2048,1536", "--tissue", "none", "--device", "cpu")
PROGRAMS = ("sbatch", "slurmctld", "slurmd", "munged", "openssl")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"SLURM isn't installed ({', '.join(missing)}); `make slurm` does that")
    with one_node(tmp_path_factory.mktemp("slurm") / "node") as slurm:
        yield slurm


def test_out_of_time_and_preempted_it_still_ends_with_the_same_bytes(
    slurm: Slurm, example_slide_path: Path, tmp_path: Path
) -> None:
    slide, output = str(example_slide_path), tmp_path / "slide.ome.zarr"
    arguments = [slide, "--output", str(output), *CHOICES]
    job = slurm.submit(tmp_path, *arguments, SBATCH_GPUS_PER_TASK="1")
    job.wait_until(lambda: len(markers(output)) >= 2)
    assert sorted(gpus_by_task(job).values()) == ["0", "1"]
    folder = tmp_path / f"wsi-unet-{job.number}" / "start-0"
    assert json.loads((folder / "scheduler.json").read_text())["address"].startswith("tls://")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # What SLURM sends before the time limit, because the recipe asks for it.
    slurm.call("scancel", "--batch", "--signal=USR1", job.number)
    job.wait_until(lambda: job.field("Restarts") == "1")
    assert "time is up; back into the queue" in job.log()
    assert not (folder / "key.pem").exists()
    out_of_time = markers(output)

    job.wait_until(lambda: len(markers(output)) >= len(out_of_time) + 2)
    slurm.call("sbatch", "--partition=urgent", "--ntasks=4", "--output=/dev/null", "--wrap=true")
    job.wait_until(lambda: job.field("Restarts") == "2")
    preempted = markers(output)

    job.wait_for("COMPLETED")
    after = markers(output)
    assert len(out_of_time) < len(preempted) < len(after) == 12
    assert out_of_time.items() <= preempted.items() <= after.items()
    assert sound(output)
    whole = tmp_path / "whole.ome.zarr"
    undisturbed(example_slide_path, whole, *CHOICES)
    assert arrays(output) == arrays(whole)


def test_bad_input_ends_the_job_with_its_exit_code(slurm: Slurm, tmp_path: Path) -> None:
    job = slurm.submit(tmp_path, "no-such-slide.svs", workers=1)
    job.wait_for("FAILED")
    assert job.field("ExitCode") == "2:0"
    assert job.field("Restarts") == "0"
    assert "no-such-slide.svs: no such file" in job.log()


def test_restarts_are_limited(slurm: Slurm, tmp_path: Path) -> None:
    job = slurm.submit(tmp_path, "slide.svs", WSI_UNET_MAX_RESTARTS="-1")
    job.wait_for("FAILED")
    assert job.field("ExitCode") == "1:0"
    assert "WSI_UNET_MAX_RESTARTS" in job.log()


def gpus_by_task(job: Job) -> dict[str, str]:
    """Return what GPUs the worker processes of a job see, by the number of their task."""
    found = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        task = environment.get("SLURM_PROCID")
        if (
            environment.get("SLURM_STEP_ID") == "0"
            and environment.get("SLURM_JOB_ID") == job.number
        ):
            found[str(task)] = environment.get("CUDA_VISIBLE_DEVICES", "")
    return found

"""Worker processes that die again and again take nobody else's blocks with them."""

from __future__ import annotations

from pathlib import Path

import psutil
from support.runs import Study, array_objects, marker_times

import wsi_unet

KILLS = 5


def test_workers_killed_more_than_three_times(study: Study, tmp_path: Path) -> None:
    """Dask gives up on a task after three deaths that it was near; here it may not."""
    output = tmp_path / "out"
    killed: list[int] = []

    def kill_a_worker(progress: wsi_unet.RunProgress) -> None:
        if progress.phase != "segmenting" or len(killed) >= KILLS:
            return
        for process in psutil.Process().children(recursive=True):
            if process.pid not in killed and is_worker(process):
                process.kill()
                killed.append(process.pid)
                return

    report = study.run(output, workers=2, on_progress=kill_a_worker)
    assert len(killed) == KILLS
    assert report.state in ("finished", "incomplete")
    assert report.blocks.done == len(marker_times(output))
    assert (report.state == "finished") == (report.blocks.done == study.blocks)
    if report.state == "incomplete":
        assert report.failures
        assert study.run(output).state == "finished"
    assert array_objects(output) == array_objects(study.whole)


def is_worker(process: psutil.Process) -> bool:
    """Whether it is one of Dask's workers, started by `multiprocessing`, and not a helper."""
    try:
        return "--multiprocessing-fork" in process.cmdline()
    except psutil.Error:
        return False

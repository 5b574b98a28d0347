"""Worker processes that die repeatedly don't make other blocks fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import warm
from support.runs import Study, array_objects, marker_times

import wsi_unet
from wsi_unet.segmentation.runs import meter

KILLS = 5
SLOW = 32
"""Side of a tile, px: so small that a block outlives the time between two looks at it."""


def test_workers_killed_more_than_three_times(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask gives up on a task after three deaths that it was near; here it may not."""
    monkeypatch.setattr(meter, "PROGRESS_SECONDS", 0.0)
    output = tmp_path / "out"
    killed: list[int] = []

    def kill_a_worker(progress: wsi_unet.RunProgress) -> None:
        if progress.phase != "segmenting" or len(killed) >= KILLS:
            return
        for process in warm.find_dask_workers():
            if process.pid not in killed:
                process.kill()
                killed.append(process.pid)
                return

    undisturbed = tmp_path / "undisturbed"
    assert study.run(undisturbed, tile=SLOW).state == "finished"
    two = wsi_unet.ClusterOptions(workers=2)
    report = study.run(output, cluster=two, on_progress=kill_a_worker, tile=SLOW)
    assert len(killed) == KILLS
    assert report.state in ("finished", "incomplete")
    assert report.blocks.done == len(marker_times(output))
    assert (report.state == "finished") == (report.blocks.done == study.blocks)
    if report.state == "incomplete":
        assert report.failures
        assert study.run(output, tile=SLOW).state == "finished"
    assert array_objects(output) == array_objects(undisturbed)

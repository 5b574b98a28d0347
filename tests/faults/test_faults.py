"""Faults of processes, files and disk: repeating the command gives the undisturbed result.

Every test checks the whole output against an undisturbed run, byte by byte, and that no block was
computed twice without a reason. `python -m benchmarks.faults` does this for hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from support.fault_account import FAILED
from support.fault_cluster import Cluster
from support.fault_kinds import DEATHS, fault
from support.fault_study import FaultStudy
from support.fault_trial import Fault, Trial


def disturbed(cluster: Cluster, study: FaultStudy, output: Path, faults: Sequence[Fault]) -> Trial:
    """Run the command with these faults; check that all happened and did no harm."""
    trial = Trial(cluster, study, output)
    trial.run(faults)
    assert trial.injected == [fault.kind for fault in faults], trial.story()
    assert trial.complaints() == [], trial.story()
    return trial


def test_killed_workers_and_clients(cluster: Cluster, study: FaultStudy, tmp_path: Path) -> None:
    trial = disturbed(
        cluster,
        study,
        tmp_path / "out",
        [
            fault("kill a worker", after=4, pause=0.1),
            fault("kill the client", after=12, pause=0.1),
            fault("kill all workers", after=20, pause=0.1),
        ],
    )
    assert [ended.code for ended in trial.ends[:2]] == [-9, 0]
    book = trial.account()
    assert book.recomputed.total() <= book.in_flight.total()
    assert book.in_flight["kill a worker"] <= 2


def test_a_block_whose_worker_is_killed_again_and_again(
    cluster: Cluster, study: FaultStudy, tmp_path: Path
) -> None:
    """It dies more often than Dask tolerates; the other blocks in that worker aren't blamed."""
    trial = disturbed(cluster, study, tmp_path / "out", [fault("kill a block's workers", after=12)])
    assert trial.account().faults["kill a block's workers"] == DEATHS
    assert [ended.code for ended in trial.ends[:1]] == [0], "this needs no second run"


def test_a_killed_scheduler_and_a_stopped_client(
    cluster: Cluster, study: FaultStudy, tmp_path: Path
) -> None:
    disturbed(
        cluster,
        study,
        tmp_path / "out",
        [
            fault("stop the client", after=4, pause=0.1),
            fault("kill the scheduler", after=14, pause=0.1),
        ],
    )


def test_stopped_workers_that_come_back(
    cluster: Cluster, study: FaultStudy, tmp_path: Path
) -> None:
    """One resumes in time; the other was given up, and finds its blocks done by another."""
    trial = disturbed(
        cluster,
        study,
        tmp_path / "out",
        [
            fault("stop a worker for long", after=6, pause=0.1),
            fault("stop a worker", after=8, pause=0.1),
        ],
    )
    assert trial.account().recomputed["stop a worker for long"] >= 1


def test_a_worker_that_joins_late_is_used(
    cluster: Cluster, study: FaultStudy, tmp_path: Path
) -> None:
    trial = disturbed(cluster, study, tmp_path / "out", [fault("add a worker late", after=2)])
    assert trial.noted_by("late2", "marked")


def test_damaged_files_are_made_again(cluster: Cluster, study: FaultStudy, tmp_path: Path) -> None:
    kinds = ("delete a shard", "truncate a shard", "truncate a marker")
    trial = disturbed(
        cluster,
        study,
        tmp_path / "out",
        [fault(kind, after=18 + n) for n, kind in enumerate(kinds)],
    )
    assert trial.account().recomputed.keys() <= set(kinds)
    assert trial.account().recomputed.total() <= len(kinds)


def test_a_full_disk_and_a_store_that_returns_errors(
    cluster: Cluster, study: FaultStudy, disk: Path
) -> None:
    trial = disturbed(
        cluster,
        study,
        disk / "out",
        [fault("store errors", after=6), fault("fill the disk", after=18)],
    )
    assert trial.account().recomputed.keys() <= {FAILED}

"""Fixtures of the fault tests: clients to start, an undisturbed run, a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fault_cluster import Cluster
from support.fault_kinds import WORKER_TTL
from support.fault_study import FaultStudy, small_disk


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> FaultStudy:
    """Return a study with thirty blocks of labels, four of the image, and its undisturbed run."""
    return FaultStudy.make(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a cluster of two workers with nannies, which every test leaves intact."""
    ttl = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{WORKER_TTL}s"}
    with Cluster(tmp_path_factory.mktemp("cluster") / "c", settings=ttl) as running:
        yield running


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system that is soon full."""
    folder = tmp_path / "disk"
    try:
        with small_disk(folder, mebibytes=128):
            yield folder
    except OSError as error:
        pytest.skip(str(error))

"""How many threads the network gets in real worker processes, which start with one each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client
from support import on_workers
from support.clusters import scheduler, worker
from support.oracle import balanced_model, textured

from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.workers import count_workers, processes_per_core
from wsi_unet.models import UNetConfig
from wsi_unet.models.inference.predictor import CPU_SLOTS

CORES = 6
PRETENDED = {"WSI_UNET_TEST_WORKER": f"cores={CORES}"}
PRELOAD = ("--preload", "support.on_workers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("threads") / "model"
    balanced_model(UNetConfig(depth=2, base_width=4), textured(200, 200), path)
    return str(path)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with scheduler(tmp_path) as found:
        yield found


def threads(client: Client, model: str) -> int:
    """Return the number of threads that a forward gets in a task."""
    share = processes_per_core(client)
    found: int = client.submit(on_workers.threads_of_a_forward, model, share, pure=False).result()
    return found


def test_nannies_set_one_thread_and_the_network_gets_its_share(address: str, model: str) -> None:
    with (
        worker(address, *PRELOAD, "--nworkers", "2", env=PRETENDED, nanny=True),
        open_client(ClusterOptions(scheduler=address)) as client,
    ):
        client.wait_for_workers(2, timeout=180)
        assert set(client.run(on_workers.environment, "OMP_NUM_THREADS").values()) == {"1"}
        assert (count_workers(client).per_host, processes_per_core(client)) == (2, 2)
        assert threads(client, model) == CORES // 2 // CPU_SLOTS


@pytest.mark.skipif(
    shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2,
    reason="needs taskset and two cores",
)
def test_processes_on_cores_of_their_own_share_nothing(address: str, model: str) -> None:
    first, second, *_ = sorted(os.sched_getaffinity(0))
    with (
        worker(address, *PRELOAD, env=PRETENDED, wrapper=("taskset", "-c", str(first))),
        open_client(ClusterOptions(scheduler=address)) as client,
    ):
        with worker(address, *PRELOAD, env=PRETENDED, wrapper=("taskset", "-c", str(second))):
            client.wait_for_workers(2, timeout=180)
            assert (count_workers(client).per_host, processes_per_core(client)) == (2, 1)
            assert threads(client, model) == CORES // CPU_SLOTS
        with worker(address, wrapper=("taskset", "-c", f"{first},{second}")):
            client.wait_for_workers(2, timeout=180)
            assert processes_per_core(client) == 2


def test_this_process_shares_with_nobody() -> None:
    with open_client() as client:
        assert processes_per_core(client) == 1

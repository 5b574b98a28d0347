"""One process per GPU: which GPU each process sees, on a machine without any."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import on_workers
from support.clusters import until

from wsi_unet.dask_cluster import cluster
from wsi_unet.dask_cluster.cluster import THREADS_PER_PROCESS, open_client
from wsi_unet.dask_cluster.gpus import list_visible_gpus
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.workers import count_workers, processes_per_core

UUIDS = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-1d6a9b2e-0c3d-4f7a-9b1e-7a5c2f4e6d80"
SLICES = "MIG-a5b1c2d3-0000-1111-2222-333344445555", "MIG-0f0f0f0f-6666-7777-8888-9999aaaabbbb"


@pytest.mark.parametrize(
    ("named", "count", "gpus"),
    [
        (None, 0, ()),
        (None, 3, ("0", "1", "2")),
        ("2,0", 2, ("2", "0")),
        ("2, 0", 2, ("2", "0")),
        ("", 0, ()),
        ("-1", 0, ()),
        ("0,1,-1,2", 2, ("0", "1")),
        (",".join(UUIDS), 2, UUIDS),
        (",".join(SLICES), 2, SLICES),
    ],
)
def test_gpus_are_named_as_the_environment_names_them(
    named: str | None, count: int, gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert list_visible_gpus() == gpus


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_work_is_done_in_this_process() -> None:
    with open_client(ClusterOptions(workers="auto")) as client:
        assert client.run(os.getpid) == dict.fromkeys(client.nthreads(), os.getpid())


def test_each_process_sees_one_gpu_also_after_it_was_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus = ("3", UUIDS[0], SLICES[1])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(gpus))
    monkeypatch.setattr(cluster, "list_visible_gpus", lambda: gpus)

    def seen() -> list[str]:
        found = client.run(on_workers.environment, "CUDA_VISIBLE_DEVICES", on_error="ignore")
        return sorted(found.values())

    with open_client(ClusterOptions(workers="auto")) as client:
        found = count_workers(client)
        assert (found.processes, found.threads) == (3, THREADS_PER_PROCESS)
        assert processes_per_core(client) == 3
        assert seen() == sorted(gpus)
        processes = set(client.run(os.getpid).values())
        assert os.getpid() not in processes
        os.kill(min(processes), signal.SIGKILL)
        until(lambda: len(seen()) < 3, "the process is gone")
        until(lambda: seen() == sorted(gpus), "another has its GPU")
        assert len(processes & set(client.run(os.getpid).values())) == 2
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(gpus)


STAND_IN = '''
"""Stands in for dask-cuda: the same arguments, a process per GPU, the others listed behind it."""
from distributed import LocalCluster

class LocalCUDACluster(LocalCluster):
    def __init__(self, CUDA_VISIBLE_DEVICES=None, n_workers=None, threads_per_worker=1,
                 memory_limit="auto", device_memory_limit="default", **kwargs):
        assert memory_limit is None and device_memory_limit is None
        names = CUDA_VISIBLE_DEVICES.split(",")
        super().__init__(n_workers=0, threads_per_worker=threads_per_worker,
                         memory_limit=memory_limit, **kwargs)
        self.names = names
        self.scale(len(names))
        self.sync(self._correct_state)

    def new_worker_spec(self):
        name = min(set(range(len(self.names))) - set(self.worker_spec))
        visible = ",".join(self.names[name:] + self.names[:name])
        options = self.new_spec["options"] | {"env": {"CUDA_VISIBLE_DEVICES": visible}}
        return {name: self.new_spec | {"options": options}}
'''


@pytest.fixture
def dask_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "dask_cuda.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("dask_cuda", None)


@pytest.mark.usefixtures("dask_cuda")
def test_dask_cuda_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "list_visible_gpus", lambda: ("0", "1"))
    with open_client(ClusterOptions(workers="auto")) as client:
        assert type(client.cluster).__name__ == "LocalCUDACluster"
        seen = client.run(on_workers.environment, "CUDA_VISIBLE_DEVICES")
        assert sorted(seen.values()) == ["0,1", "1,0"]
        assert count_workers(client).threads == THREADS_PER_PROCESS

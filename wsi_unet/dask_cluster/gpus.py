"""Starting one worker process per GPU of this machine."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from distributed import LocalCluster, Security, SpecCluster

from wsi_unet.dask_cluster.local_cluster import start_processes

VISIBLE = "CUDA_VISIBLE_DEVICES"


def list_visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    A name is an index, a UUID ("GPU-…") or a slice of a GPU ("MIG-…"). GPUs are counted without
    making a context on one, which would take its memory.
    """
    count = torch.cuda.device_count()
    named = os.environ.get(VISIBLE)
    if named is None:
        return tuple(str(index) for index in range(count))
    # CUDA stops at the first name that it doesn't know, so only the first `count` are good.
    return tuple(name.strip() for name in named.split(","))[:count]


def start_gpu_cluster(gpus: tuple[str, ...], *, threads: int, silence: str | None) -> SpecCluster:
    """Start a scheduler and one worker process for each GPU, which is the process's "cuda:0".

    If dask-cuda is installed, its cluster is used: it also keeps each process on the cores near
    its GPU.

    Args:
        gpus: names of the GPUs, as in CUDA_VISIBLE_DEVICES.
        threads: task threads per process.
        silence: the level from which on Dask's log messages are shown; None changes nothing.
    """
    if find_spec("dask_cuda") is not None:
        return _start_dask_cuda_cluster(gpus, threads=threads, silence=silence)
    return start_processes([{VISIBLE: gpu} for gpu in gpus], threads=threads, silence=silence)


def _start_dask_cuda_cluster(
    gpus: tuple[str, ...], *, threads: int, silence: str | None
) -> LocalCluster:
    from dask_cuda import LocalCUDACluster

    cluster: LocalCluster = LocalCUDACluster(
        CUDA_VISIBLE_DEVICES=",".join(gpus),
        threads_per_worker=threads,
        memory_limit=None,
        device_memory_limit=None,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        security=Security.temporary(),
        silence_logs=silence,
    )
    return cluster

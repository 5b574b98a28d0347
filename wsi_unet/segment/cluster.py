"""The Dask client a run uses: in this process, local worker processes, or somebody's cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

from wsi_unet.errors import OptionError
from wsi_unet.models.devices import keep_freed_memory

THREADS_PER_PROCESS = 2
"""Blocks in work per process, so that reading, predicting and writing of two of them overlap."""

_SETTINGS = {
    # A dying worker makes all its blocks suspicious; they are harmless, so let them go on.
    "distributed.scheduler.allowed-failures": 100,
    # One machine's own worker processes are never short of a message for long.
    "distributed.comm.timeouts.connect": "60s",
    # The plan has bounded the memory; pausing or killing workers can only lose work.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.tick.limit": "1h",
}


@contextmanager
def open_client(workers: int | None = None, scheduler: str | None = None) -> Iterator[Client]:
    """Yield a client: in-process by default, `workers` processes, or an existing scheduler's.

    Args:
        workers: number of local worker processes to start.
        scheduler: address of a running scheduler, for example "tcp://127.0.0.1:8786".

    Raises:
        OptionError: if the scheduler can't be reached or has no workers.
    """
    if scheduler is not None:
        with _connected(scheduler) as client:
            yield client
        return
    with (
        dask.config.set(_SETTINGS),
        LocalCluster(
            n_workers=workers or 1,
            threads_per_worker=THREADS_PER_PROCESS,
            processes=workers is not None,
            memory_limit=0,
            dashboard_address=":0",
            scheduler_kwargs={"dashboard": False},
            silence_logs="CRITICAL",
        ) as cluster,
        Client(cluster) as client,
    ):
        if workers is not None:
            _prepare(client)
        yield client


@contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise OptionError(
            f"no Dask scheduler answers at {scheduler} ({type(error).__name__}); "
            "start one with `dask scheduler` or check the address"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=30)
        except TimeoutError as error:
            raise OptionError(
                f"the scheduler at {scheduler} has no workers; start some with `dask worker`"
            ) from error
        _prepare(client)
        yield client


def _prepare(client: Client) -> None:
    """Set up worker processes, those that join later too; this process is its owner's affair."""
    client.register_worker_callbacks(keep_freed_memory)


def worker_threads(client: Client) -> int:
    """Return the number of task threads of all workers."""
    return sum(client.nthreads().values())


def process_count(client: Client) -> int:
    """Return the number of worker processes."""
    return max(1, len(client.nthreads()))


def processes_per_host(client: Client) -> int:
    """Return how many worker processes share the busiest host's cores."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return max(Counter(worker["host"] for worker in workers).values(), default=1)

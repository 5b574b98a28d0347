"""The Dask client a run uses: in this process, local worker processes, or somebody's cluster."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker

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
    # Dask looks at its own threads, event loop and process up to 100 times a second, which takes
    # 5 % of a core. The network waits for its slowest thread, so it would lose all of that.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
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
    with dask.config.set(_SETTINGS), ExitStack() as stack:
        with _starting():
            cluster = stack.enter_context(_local_cluster(workers))
            client = stack.enter_context(Client(cluster))
        if workers is not None:
            # Ours to set up; a process that isn't, this one or a cluster's, is its owner's affair.
            client.register_worker_callbacks(keep_freed_memory)
        yield client


def _local_cluster(workers: int | None) -> LocalCluster:
    return LocalCluster(
        n_workers=workers or 1,
        threads_per_worker=THREADS_PER_PROCESS,
        processes=workers is not None,
        memory_limit=0,
        dashboard_address=":0",
        scheduler_kwargs={"dashboard": False},
        silence_logs="CRITICAL",
    )


@contextmanager
def _starting() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM inside, and keep Ctrl-C from the processes started here.

    An interruption would leave a cluster half started, which can't be closed properly. And a
    terminal sends Ctrl-C to worker processes too, whose blocks should end first: they are started
    with the signal blocked, which processes inherit; here it arrives when all are there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # would unblock the signal when it starts by itself
    arrived: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in arrived:
            signal.raise_signal(number)


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
        yield client


@dataclass(frozen=True)
class Workers:
    """The worker processes of a cluster.

    Attributes:
        processes: how many there are.
        threads: task threads of the largest: blocks that are in work there at once.
        per_host: processes that share the busiest host's cores.
        total_threads: task threads of all of them.
    """

    processes: int
    threads: int
    per_host: int
    total_threads: int


def count_workers(client: Client) -> Workers:
    """Return what workers there are now; at least one with one thread."""
    threads = client.nthreads().values()
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    hosts = Counter(worker["host"] for worker in workers)
    return Workers(
        processes=max(1, len(threads)),
        threads=max(threads, default=1),
        per_host=max(hosts.values(), default=1),
        total_threads=max(1, sum(threads)),
    )

"""The Dask client a run uses: in this process, local worker processes, or somebody's cluster."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import dask
from distributed import Client, LocalCluster, SpecCluster

from wsi_unet import logs
from wsi_unet.dask_cluster.connection import connect_client
from wsi_unet.dask_cluster.file_visibility import check_paths
from wsi_unet.dask_cluster.gpus import list_visible_gpus, start_gpu_cluster
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.performance_report import reporting
from wsi_unet.dask_cluster.versions import check_versions, refuse_other_versions
from wsi_unet.dask_cluster.workers import processes_per_core, scheduler_address
from wsi_unet.errors import ClusterError, OptionError
from wsi_unet.signals import interrupts_blocked

__all__ = [
    "WorkerCounts",
    "check_paths",
    "count_workers",
    "is_cluster_alive",
    "open_client",
    "processes_per_core",
]

THREADS_PER_PROCESS = 2
"""Blocks in work per process, so that reading, predicting and writing of two of them overlap."""

_SETTINGS = {
    # Our own worker processes keep freed memory (see `models.devices.keep_freed_memory`), from
    # their first thread on; a process that isn't ours is its owner's affair.
    "distributed.nanny.pre-spawn-environ": {
        "MALLOC_MMAP_MAX_": 0,
        "MALLOC_TRIM_THRESHOLD_": 2**30,
        "MALLOC_ARENA_MAX": 1,
        "OMP_NUM_THREADS": 1,
        "MKL_NUM_THREADS": 1,
        "OPENBLAS_NUM_THREADS": 1,
    },
    # Blocks whose worker died this often are set aside and tried alone (see `Flight`).
    "distributed.scheduler.allowed-failures": 3,
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
def open_client(options: ClusterOptions | None = None) -> Iterator[Client]:
    """Yield a client of the workers that are asked for; without options, in this process.

    Raises:
        OptionError: if the scheduler can't be reached, has no workers, or runs other versions of
            what matters than this process; or the performance report can't be written.
        ClusterError: if the worker processes can't be started.
    """
    options = options or ClusterOptions()
    with ExitStack() as stack:
        if options.scheduler is None:
            client = stack.enter_context(_started(options))
        else:
            client = stack.enter_context(
                connect_client(
                    options.scheduler,
                    tls_ca=options.tls_ca,
                    tls_cert=options.tls_cert,
                    tls_key=options.tls_key,
                )
            )
            check_versions(client)
            stack.enter_context(refuse_other_versions(client))
        if options.performance_report is not None:
            stack.enter_context(reporting(client, options.performance_report))
        found = count_workers(client)
        logs.event(
            "cluster ready",
            scheduler=scheduler_address(client),
            processes=found.processes,
            threads=found.total_threads,
        )
        yield client


@contextmanager
def _started(options: ClusterOptions) -> Iterator[Client]:
    """Yield a client of workers that this process starts, and stops again."""
    settings = _SETTINGS | {
        "distributed.worker.profile.enabled": options.performance_report is not None
    }
    gpus = list_visible_gpus() if options.workers == "auto" else ()
    workers = len(gpus) or None if options.workers == "auto" else options.workers
    if workers is not None:
        _refuse_in_worker()
    with dask.config.set(settings), ExitStack() as stack:
        with _starting():
            try:
                cluster = stack.enter_context(_cluster(gpus, workers))
            except (RuntimeError, OSError) as error:
                raise ClusterError(
                    f"the worker processes can't be started: {_root(error)}; "
                    "they may have said more above"
                ) from error
            client = stack.enter_context(Client(cluster))
        yield client


def _refuse_in_worker() -> None:
    """Refuse to start worker processes from one that is just starting.

    It reads the script that it comes from, and so gets here if the call there has no guard.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise OptionError(
            "worker processes start by reading the script that wants them, so it must call this "
            "below `if __name__ == '__main__':`"
        )


def _root(error: BaseException) -> BaseException:
    """Return what led to `error`."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _cluster(gpus: tuple[str, ...], workers: int | None) -> SpecCluster:
    silence = None if logs.is_verbose() else "CRITICAL"
    if gpus:
        return start_gpu_cluster(gpus, threads=THREADS_PER_PROCESS, silence=silence)
    return LocalCluster(
        n_workers=workers or 1,
        threads_per_worker=THREADS_PER_PROCESS,
        processes=workers is not None,
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=silence,
    )


@contextmanager
def _starting() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM inside, and keep Ctrl-C from the processes started here.

    An interruption would leave a cluster half started, which can't be closed properly. And blocks
    should end first, so worker processes never see the Ctrl-C that a terminal sends them too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    try:
        with interrupts_blocked():
            handler = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
            try:
                yield
            finally:
                signal.signal(signal.SIGTERM, handler)
    finally:
        for number in arrived:
            signal.raise_signal(number)


def is_cluster_alive(client: Client) -> bool:
    """Whether there is a scheduler to give blocks to; costs nothing to ask.

    A scheduler that has died shows at once, one whose machine or network is gone after about 20 s,
    as far as anything is sent. Then nothing in flight comes back, but the client still tries to
    reach it for 10 s (status "connecting"), in which it may have been started anew.
    """
    return client.status in ("running", "connecting")


@dataclass(frozen=True)
class WorkerCounts:
    """The worker processes of a cluster.

    Attributes:
        processes: how many there are.
        threads: task threads of the largest: blocks that are in work there at once.
        per_host: processes on the busiest host, which share its memory.
        total_threads: task threads of all of them.
        per_core: processes that share the busiest core, where that was asked.
    """

    processes: int
    threads: int
    per_host: int
    total_threads: int
    per_core: int = 1


def count_workers(client: Client) -> WorkerCounts:
    """Return what workers there are now, if any."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    hosts = Counter(worker["host"] for worker in workers)
    threads = [worker["nthreads"] for worker in workers]
    return WorkerCounts(
        processes=len(threads),
        threads=max(threads, default=0),
        per_host=max(hosts.values(), default=0),
        total_threads=sum(threads),
    )

"""Opening a client of the Dask cluster that computes.

Its workers are threads of this process, local worker processes, or those of an existing cluster.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dask
from distributed import Client, SpecCluster

from wsi_unet import logs
from wsi_unet.dask_cluster.connection import connect_client
from wsi_unet.dask_cluster.gpus import list_visible_gpus, start_gpu_cluster
from wsi_unet.dask_cluster.local_cluster import (
    NO_ROUTES,
    private_scratch_folder,
    start_processes,
    start_threads,
)
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.performance_report import write_performance_report
from wsi_unet.dask_cluster.versions import check_versions, refuse_other_versions
from wsi_unet.dask_cluster.workers import count_workers, scheduler_address
from wsi_unet.errors import ClusterError, OptionError
from wsi_unet.signals import interruptions_held, interruptions_kept_from_children

THREADS_PER_PROCESS = 2
"""Blocks computed at once per process: one is read or written while the other is predicted."""

_SETTINGS = NO_ROUTES | {
    # Our own worker processes keep freed memory (see `keep_freed_memory` in models/inference), from
    # their first thread on. Other processes are left as they are.
    "distributed.nanny.pre-spawn-environ": {
        "MALLOC_MMAP_MAX_": 0,
        "MALLOC_TRIM_THRESHOLD_": 2**30,
        "MALLOC_ARENA_MAX": 1,
        "OMP_NUM_THREADS": 1,
        "MKL_NUM_THREADS": 1,
        "OPENBLAS_NUM_THREADS": 1,
    },
    # Blocks whose worker died this often are set aside and tried alone.
    "distributed.scheduler.allowed-failures": 3,
    # Worker processes of the same machine do answer, however busy it is.
    "distributed.comm.timeouts.connect": "60s",
    # The plan has bounded the memory; pausing or killing workers would only lose work.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.tick.limit": "1h",
    # Dask samples its threads, event loop and process up to 100 times a second, which takes 5 % of
    # a core. The network waits for its slowest thread, so it would become slower by as much.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


@contextmanager
def open_client(options: ClusterOptions | None = None) -> Iterator[Client]:
    """Yield a client of the cluster that the options ask for; without options, of this process.

    Raises:
        OptionError: the scheduler can't be reached, needs TLS or runs other versions than this
            process, or the performance report can't be written.
        ClusterError: the worker processes can't be started, or the scheduler has none.
    """
    options = options or ClusterOptions()
    logs.keep_dask_silent()
    with ExitStack() as stack:
        if options.scheduler is None:
            client = stack.enter_context(_start_client(options))
        else:
            client = stack.enter_context(
                connect_client(
                    options.scheduler,
                    tls_ca=options.tls_ca,
                    tls_cert=options.tls_cert,
                    tls_key=options.tls_key,
                    insecure=options.insecure,
                )
            )
            check_versions(client)
            stack.enter_context(refuse_other_versions(client))
        if options.performance_report is not None:
            stack.enter_context(write_performance_report(client, options.performance_report))
        counts = count_workers(client)
        logs.event(
            "cluster ready",
            scheduler=scheduler_address(client),
            processes=counts.processes,
            threads=counts.total_threads,
        )
        yield client


@contextmanager
def _start_client(options: ClusterOptions) -> Iterator[Client]:
    """Yield a client of workers that this process starts here, and stops afterwards."""
    settings = _SETTINGS | {
        "distributed.worker.profile.enabled": options.performance_report is not None
    }
    gpus = list_visible_gpus() if options.workers == "auto" else ()
    workers = len(gpus) or None if options.workers == "auto" else options.workers
    if workers is not None:
        _refuse_in_worker()
    with dask.config.set(settings), ExitStack() as stack:
        # An interruption would leave a cluster half started, which can't be closed properly. And
        # blocks should end first, so worker processes never see the Ctrl-C of the terminal.
        with interruptions_held(), interruptions_kept_from_children():
            try:
                stack.enter_context(private_scratch_folder())
                cluster = stack.enter_context(_start_cluster(gpus, workers))
            except (RuntimeError, OSError) as error:
                raise ClusterError(
                    f"the worker processes can't be started: {_first_cause(error)}; "
                    "they may have said more above"
                ) from error
            client = stack.enter_context(Client(cluster))
        yield client


def _refuse_in_worker() -> None:
    """Refuse to start worker processes from a worker process that is just starting.

    It imports the script that started it, and gets here if the call in that script has no guard.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise OptionError(
            "worker processes import the script that starts them, so the script must call this "
            "below `if __name__ == '__main__':`"
        )


def _first_cause(error: BaseException) -> BaseException:
    """Return the error that led to `error`."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _start_cluster(gpus: tuple[str, ...], workers: int | None) -> SpecCluster:
    silence = None if logs.is_verbose() else "CRITICAL"
    if gpus:
        return start_gpu_cluster(gpus, threads=THREADS_PER_PROCESS, silence=silence)
    if workers is None:
        return start_threads(THREADS_PER_PROCESS, silence=silence)
    return start_processes([{}] * workers, threads=THREADS_PER_PROCESS, silence=silence)

"""Counting and asking the workers of a cluster, without waiting for one that hangs."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from distributed import Client

from wsi_unet.dask_cluster.scheduler import broken_handshakes_as_closed, scheduler_lost_error

ANSWER_SECONDS = 30.0
"""How long a worker may take to answer; for the first question it may have to import something."""


@dataclass(frozen=True)
class Worker:
    """A worker process.

    Attributes:
        address: Dask's address of it, for example "tcp://10.0.0.3:40123".
        host: the machine it runs on, from its address.
    """

    address: str
    host: str

    def __str__(self) -> str:
        return f"worker {self.address}"


def list_workers(client: Client) -> list[Worker]:
    """Return the workers that there are now.

    Raises:
        ClusterError: the scheduler went away.
    """
    workers = _fetch_workers(client)
    return [Worker(address, worker["host"]) for address, worker in workers.items()]


def _fetch_workers(client: Client) -> dict[str, dict[str, Any]]:
    """Return what the scheduler says of each worker, by address.

    While the client tries to reach a scheduler that it has lost, that is what it said last.

    Raises:
        ClusterError: the client has given it up.
    """
    try:
        with broken_handshakes_as_closed():
            workers: dict[str, dict[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
    except (KeyError, OSError, RuntimeError) as error:  # a closed client knows nothing
        raise scheduler_lost_error(client, kept=False) from error
    return workers


def scheduler_address(client: Client) -> str:
    """Return the scheduler's address; empty once the client is closed."""
    return "" if client.scheduler is None else str(client.scheduler.address)


def runs_in_this_process(client: Client) -> bool:
    """Return whether the workers are threads of this process."""
    return scheduler_address(client).startswith("inproc://")


def ask_workers(
    client: Client,
    workers: Iterable[Worker],
    question: Callable[..., Any],
    *arguments: Any,
    seconds: float = ANSWER_SECONDS,
) -> dict[Worker, Any]:
    """Call a function on each worker, all at once.

    Args:
        client: the cluster.
        workers: the workers to ask.
        question: the function they call; they must be able to import it.
        arguments: its arguments.
        seconds: how long to wait.

    Returns:
        What each worker returned, or the exception that it raised, in the order of `workers`.
        TimeoutError means that it didn't answer, any other OSError that it has left.

    Raises:
        ClusterError: the scheduler went away.
    """
    workers = list(workers)
    if not is_cluster_alive(client):
        raise scheduler_lost_error(client, kept=False)

    async def ask(worker: Worker) -> Any:
        answers = client.run(question, *arguments, workers=[worker.address], on_error="return")
        try:
            with broken_handshakes_as_closed():
                return (await asyncio.wait_for(answers, seconds))[worker.address]
        except OSError as error:  # TimeoutError is one
            return error

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*map(ask, workers))

    return dict(zip(workers, client.sync(ask_all), strict=True))


def is_cluster_alive(client: Client) -> bool:
    """Return whether there is a scheduler to submit blocks to; nothing is sent.

    A scheduler that has died is noticed at once, one whose machine or network is gone after about
    20 s if anything is sent. Blocks in flight are lost then, but the client tries to reach the
    scheduler for another 10 s (status "connecting"), in case it was started again.
    """
    return client.status in ("running", "connecting")


@dataclass(frozen=True)
class WorkerCounts:
    """The numbers of a cluster's worker processes and threads.

    Attributes:
        processes: number of worker processes.
        threads: task threads of the process with the most: blocks computed there at once.
        per_host: processes on the busiest host, which share its memory.
        total_threads: task threads of all processes.
        per_core: processes that share the busiest core, if that was counted.
    """

    processes: int
    threads: int
    per_host: int
    total_threads: int
    per_core: int = 1


def count_workers(client: Client) -> WorkerCounts:
    """Count the workers that there are now, if any.

    Raises:
        ClusterError: the scheduler went away.
    """
    workers = _fetch_workers(client).values()
    hosts = Counter(worker["host"] for worker in workers)
    threads = [worker["nthreads"] for worker in workers]
    return WorkerCounts(
        processes=len(threads),
        threads=max(threads, default=0),
        per_host=max(hosts.values(), default=0),
        total_threads=sum(threads),
    )


def list_usable_cores() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(os.sched_getaffinity(0))
    return tuple(range(os.cpu_count() or 1))


def processes_per_core(client: Client) -> int:
    """Return how many worker processes share the busiest core, to divide the threads by.

    Processes that are bound to cores of their own (SLURM, taskset, containers) share none,
    however many there are on the machine.
    """
    if runs_in_this_process(client):
        return 1
    workers = list_workers(client)
    answers = ask_workers(client, workers, list_usable_cores)
    sharing = Counter(
        (worker.host, core)
        for worker, cores in answers.items()
        if not isinstance(cores, Exception)
        for core in cores
    )
    return max(sharing.values(), default=1)

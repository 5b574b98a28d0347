"""Asking the worker processes of a cluster, without waiting for one that hangs."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from distributed import Client

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
    """Return the workers that there are now."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return [Worker(address, worker["host"]) for address, worker in workers.items()]


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
    """
    workers = list(workers)

    async def ask(worker: Worker) -> Any:
        answers = client.run(question, *arguments, workers=[worker.address], on_error="return")
        try:
            return (await asyncio.wait_for(answers, seconds))[worker.address]
        except OSError as error:  # TimeoutError is one
            return error

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*map(ask, workers))

    return dict(zip(workers, client.sync(ask_all), strict=True))


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

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
"""How long a worker may take to answer; the first question may make it import something."""


@dataclass(frozen=True)
class Worker:
    """A worker process.

    Attributes:
        address: Dask's, for example "tcp://10.0.0.3:40123".
        host: the machine it runs on, as its address says.
    """

    address: str
    host: str

    def __str__(self) -> str:
        return f"worker {self.address}"


def list_workers(client: Client) -> list[Worker]:
    """Return the workers there are now."""
    found = client.scheduler_info(n_workers=-1)["workers"]
    return [Worker(address, worker["host"]) for address, worker in found.items()]


def scheduler_address(client: Client) -> str:
    """Return the scheduler's address; empty once the client is closed."""
    return "" if client.scheduler is None else str(client.scheduler.address)


def runs_in_this_process(client: Client) -> bool:
    """Whether the workers are threads of this process."""
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
        workers: whom to ask.
        question: what they are to call; importable there.
        arguments: of it.
        seconds: how long to wait.

    Returns:
        What each returned, or the exception that it raised. TimeoutError: it didn't answer.
        OSError: it has left. In the order of `workers`.
    """
    asked = list(workers)

    async def ask(worker: Worker) -> Any:
        answers = client.run(question, *arguments, workers=[worker.address], on_error="return")
        try:
            return (await asyncio.wait_for(answers, seconds))[worker.address]
        except OSError as error:  # TimeoutError is one
            return error

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*map(ask, asked))

    return dict(zip(asked, client.sync(ask_all), strict=True))


def cores_of_this_process() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(os.sched_getaffinity(0))
    return tuple(range(os.cpu_count() or 1))


def processes_per_core(client: Client) -> int:
    """Return how many worker processes share the busiest core: what to divide its threads by.

    Processes that are bound to cores of their own (SLURM, taskset, containers) share none,
    however many there are on the machine.
    """
    if runs_in_this_process(client):
        return 1
    workers = list_workers(client)
    answers = ask_workers(client, workers, cores_of_this_process)
    sharing = Counter(
        (worker.host, core)
        for worker, cores in answers.items()
        if not isinstance(cores, Exception)
        for core in cores
    )
    return max(sharing.values(), default=1)

"""Measure the load that one scheduler carries, with part of a cohort whose blocks only sleep.

A real `dask scheduler`, real `dask worker` processes with many threads and a client that streams
blocks with the code of real runs are all on this machine; each block sleeps 0.2 s. The benchmark
measures their processor time per block, and whether their memory grows. A whole cohort (10,000
slides of 600 blocks) isn't run; its duration is extrapolated, as the row says. With `--tls` all of
them speak TLS, as clusters on several machines do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from distributed import Security

from benchmarks.common import (
    ROOT,
    Row,
    Scale,
    add_scale,
    emit,
    read_scale,
    run_undisturbed,
    workspace,
)

NAME = "scheduler"
LEAST_SPEED = 300.0
MOST_SCHEDULER_MS = 2.0
MOST_GROWTH = 0.1

WORKERS = 2
THREADS_PER_WORKER = 64
BLOCKS, EVERY = 100_000, 10_000
TINY_THREADS, TINY_BLOCKS, TINY_EVERY = 4, 300, 100
COHORT_BLOCKS = 10_000 * 600


@dataclass(frozen=True)
class Checkpoint:
    """The state of all processes when a number of blocks had ended.

    Attributes:
        blocks: number of blocks that had ended.
        seconds: seconds since the first block was submitted.
        most_in_flight: the most blocks so far that were taken and hadn't ended at any moment.
        bound: the most blocks that may be in flight.
        with_the_scheduler: number of tasks that the scheduler knew of.
        cpu: processor time used so far by "scheduler", "client" and "workers", s.
        memory: memory that each of these holds, bytes.
    """

    blocks: int
    seconds: float
    most_in_flight: int
    bound: int
    with_the_scheduler: int
    cpu: dict[str, float]
    memory: dict[str, int]


def measure(scale: Scale, *, tls: bool = False) -> list[Checkpoint]:
    """Run the cohort once, with or without TLS."""
    threads = TINY_THREADS if scale.tiny else THREADS_PER_WORKER
    blocks, every = (TINY_BLOCKS, TINY_EVERY) if scale.tiny else (BLOCKS, EVERY)
    with workspace() as folder, ExitStack() as stack:
        file, pem = folder / "scheduler.json", folder / "cluster.pem"
        speak: tuple[object, ...] = ()
        if tls:
            write_certificate(pem)
            speak = ("--protocol", "tls", "--tls-ca-file", pem, "--tls-cert", pem)
        scheduler = stack.enter_context(
            _running(
                *("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"),
                *("--no-dashboard", "--scheduler-file", file, *speak),
            )
        )
        while not file.exists():
            time.sleep(0.05)
        worker = ("distributed.cli.dask_worker", "--scheduler-file", file, "--no-nanny")
        options = ("--no-dashboard", "--nthreads", threads, "--memory-limit", "0", *speak)
        workers = [stack.enter_context(_running(*worker, *options)) for _ in range(WORKERS)]
        client = stack.enter_context(
            _running(
                *("benchmarks.sleeping", file, "--blocks", blocks, "--every", every),
                *("--threads", WORKERS * threads, *(["--tiny"] if scale.tiny else [])),
                *(("--tls", pem) if tls else ()),
                talks=True,
            )
        )
        processes = {"scheduler": [scheduler], "client": [client], "workers": workers}
        return list(_checkpoints(client, processes))


def write_certificate(pem: Path) -> None:
    """Write a certificate and its key to one file, for all processes of a cluster."""
    security = Security.temporary()
    pem.touch(mode=0o600)
    pem.write_text(security.tls_ca_file + security.tls_worker_key)


def _checkpoints(
    client: subprocess.Popen[str], processes: dict[str, list[subprocess.Popen[str]]]
) -> Iterator[Checkpoint]:
    watched = {
        name: [psutil.Process(process.pid) for process in group]
        for name, group in processes.items()
    }
    for line in client.stdout or ():
        cpu = {
            name: sum(sum(process.cpu_times()[:2]) for process in group)
            for name, group in watched.items()
        }
        memory = {
            name: sum(process.memory_info().rss for process in group)
            for name, group in watched.items()
        }
        yield Checkpoint(**json.loads(line), cpu=cpu, memory=memory)
        print(file=client.stdin, flush=True)
    if client.wait():
        raise SystemExit("the client of the scheduler's benchmark failed; see above")


@contextmanager
def _running(*command: object, talks: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run a Python module inside.

    Args:
        command: the module and its arguments.
        talks: whether to open pipes to it and show its errors.
    """
    pipe = subprocess.PIPE if talks else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        stdin=pipe,
        stdout=pipe,
        stderr=None if talks else subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def measure_rows(scale: Scale, *, tls: bool = False) -> Iterator[Row]:
    checkpoints, others = run_undisturbed(lambda: measure(scale, tls=tls), scale)
    yield from make_rows(checkpoints, others)


def make_rows(checkpoints: Sequence[Checkpoint], others: float = 0.0) -> Iterator[Row]:
    """Return the table's rows.

    Args:
        checkpoints: all checkpoints in order; everything has warmed up before the first.
        others: number of cores that other processes used meanwhile.
    """
    first, last = checkpoints[0], checkpoints[-1]
    blocks, seconds = last.blocks - first.blocks, last.seconds - first.seconds
    speed = blocks / seconds
    spent = {name: 1000 * (last.cpu[name] - first.cpu[name]) / blocks for name in last.cpu}
    each = ", ".join(f"{name} {ms:.2f}" for name, ms in spent.items())
    span = f"from {first.blocks:,} to {last.blocks:,} blocks"
    yield Row(
        NAME,
        "blocks of 0.2 s through one scheduler",
        speed,
        "blocks/s",
        least=LEAST_SPEED,
        detail=f"{span}; processor time per block, ms: {each}; others took {others:.2f} cores",
    )
    yield Row(
        NAME,
        "the scheduler's processor time per block",
        spent["scheduler"],
        "ms",
        most=MOST_SCHEDULER_MS,
        detail=span,
    )
    yield Row(
        NAME,
        "blocks in flight",
        last.most_in_flight,
        "blocks at most",
        most=last.bound + 1,
        detail=f"bound {last.bound}; with the scheduler at checkpoints: "
        + ", ".join(str(point.with_the_scheduler) for point in checkpoints),
    )
    for name in ("scheduler", "client"):
        yield Row(
            NAME,
            f"the {name}'s memory, last against first checkpoint",
            last.memory[name] / first.memory[name],
            "×",
            least=1 - MOST_GROWTH,
            most=1 + MOST_GROWTH,
            detail="MiB: "
            + ", ".join(f"{point.memory[name] / 2**20:.0f}" for point in checkpoints),
        )
    yield Row(
        NAME,
        "10,000 slides of 600 such blocks: extrapolated, not run",
        COHORT_BLOCKS / speed / 3600,
        "h",
        detail=f"{COHORT_BLOCKS:,} blocks at that speed",
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    add_scale(parser)
    parser.add_argument("--tls", action="store_true", help="encrypt and authenticate connections")
    given = parser.parse_args()
    emit(measure_rows(read_scale(given), tls=given.tls))


if __name__ == "__main__":
    main()

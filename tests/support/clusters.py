"""Schedulers and workers as users start them: processes of their own, on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support import warm

SUPPORT = Path(__file__).resolve().parents[1]
"""The folder on the workers' path from which they import `support`."""

STARTING_SECONDS = 180.0


@contextmanager
def running(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    wrapper: tuple[str, ...] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of Dask's programs inside; end it afterwards, with everything it started."""
    environment = os.environ | {"PYTHONPATH": str(SUPPORT)} | dict(env or {})
    with (log or Path(os.devnull)).open("ab") as stderr:
        start = subprocess.Popen if wrapper else warm.Popen
        process = start(
            [*wrapper, sys.executable, "-m", *map(str, command)],
            stdout=stderr,
            stderr=stderr,
            env=environment,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)


@contextmanager
def scheduler(
    folder: Path, *options: str | Path, env: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Yield the address of a scheduler, which it also writes to `folder/scheduler.json`."""
    file = folder / "scheduler.json"
    program = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0")
    with running(
        *program, "--no-dashboard", "--scheduler-file", file, *options,
        env=env, log=folder / "scheduler.log",
    ):  # fmt: skip
        until(
            lambda: file.exists() and file.stat().st_size > 0,
            "the scheduler starts",
            folder / "scheduler.log",
        )
        yield str(json.loads(file.read_text())["address"])
    file.unlink(missing_ok=True)


@contextmanager
def worker(
    address: str,
    *options: str | Path,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    wrapper: tuple[str, ...] = (),
    nanny: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker inside; it needs a moment to connect."""
    program = ("distributed.cli.dask_worker", address, "--no-dashboard", "--nthreads", "1")
    watched = "--nanny" if nanny else "--no-nanny"
    with running(*program, watched, *options, env=env, log=log, wrapper=wrapper) as process:
        yield process


def until(done: Callable[[], bool], what: str, log: Path | None = None) -> None:
    """Wait until a condition holds; fail with the log if it never does."""
    deadline = time.monotonic() + STARTING_SECONDS
    while not done():
        if time.monotonic() > deadline:
            said = log.read_text(errors="replace") if log is not None else ""
            raise AssertionError(f"{what}: not in {STARTING_SECONDS:.0f} s\n{said}")
        time.sleep(0.05)

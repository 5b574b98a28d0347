"""A Dask cluster on loopback of which every process may be killed: scheduler, nannies, workers.

All of them speak TLS.

Unlike in `support.clusters`, a process that dies is restarted at the same address, as by a service
manager. One worker has a nanny for that; the others are restarted from here. Workers are
bound to one core each, so that every run computes with the same number of threads and gives the
same bytes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import distributed
import psutil
from support import fault_preload, warm
from support.fault_orders import Orders

TESTS = Path(__file__).resolve().parents[1]
THREADS = 2
"""Blocks in work per worker process."""

NURSED = "w0"
"""The worker with a nanny: Dask's own service manager."""

STARTING_SECONDS = 180.0

SAME_START_SECONDS = 2.0
"""Start times of one process differ by less: the system's time of day may have been set."""

PINNED = """
import os, runpy, sys
if hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(sys.argv[1]) % len(cores)]})
del sys.argv[:2]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def start(
    *arguments: str | Path, log: Path, environment: Mapping[str, str], core: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a Python module in a process group of its own.

    Args:
        arguments: the module and its arguments.
        log: file that its output is appended to.
        environment: environment variables to set.
        core: core that it is bound to; None: all.
    """
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {"PYTHONPATH": os.pathsep.join(paths)} | dict(environment)
    how = ["-m"] if core is None else ["-c", PINNED, str(core)]
    with log.open("ab") as out:
        return warm.Popen(
            [sys.executable, *how, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | variables,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process from `start`, stopped or not, with its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


@dataclass
class Cluster:
    """Scheduler and workers; `revive` restarts those that died.

    Attributes:
        folder: folder for orders, logs and Dask's files.
        size: number of workers, each with `THREADS` task threads.
        block_seconds: least time that a block takes.
        settings: Dask's settings for all processes, as environment variables.
    """

    folder: Path
    size: int = 2
    block_seconds: float = 0.15
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "orders").mkdir(parents=True)
        self.orders = Orders(self.folder / "orders")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tls://127.0.0.1:{free.getsockname()[1]}"
        self._security = distributed.Security.temporary()
        self._write_certificates()
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        try:
            self.revive()
            self.wait_for_workers()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def connection(self) -> list[str]:
        """Options of `wsi-unet` that use this cluster."""
        tls = zip(("--tls-ca", "--tls-cert", "--tls-key"), self._certificates, strict=True)
        return ["--scheduler", self.address, *(word for pair in tls for word in pair)]

    def close(self) -> None:
        """Kill all processes."""
        for process in (*self.workers.values(), self.scheduler):
            if process is not None:
                end(process)
        self.workers.clear()
        self.scheduler = None

    def revive(self) -> None:
        """Start the processes that are missing."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            self.scheduler = self._start_scheduler()
        for name in [f"w{number}" for number in range(self.size)]:
            before = self.workers.get(name)
            if before is None or before.poll() is not None:
                if before is not None:
                    end(before)  # its nanny may have left a worker behind
                self.add_worker(name)

    def add_worker(self, name: str) -> None:
        """Start one more worker; it needs a few seconds to connect."""
        self.workers[name] = start(
            "dask", "worker", self.address, "--name", name, "--nthreads", str(THREADS),
            "--no-dashboard", "--memory-limit", "0", "--death-timeout", "60",
            *self._tls, "--local-directory", self.folder / name,
            "--preload", "support.fault_preload",
            *(["--preload-nanny", "support.warm"] if name == NURSED else ["--no-nanny"]),
            log=self.folder / f"{name}.log",
            core=int(name.strip("latew")),
            environment=dict(self.settings)
            | {
                fault_preload.ORDERS: str(self.orders.folder),
                fault_preload.SECONDS: str(self.block_seconds),
            },
        )  # fmt: skip

    def remove_late(self) -> None:
        """Kill the workers that were added."""
        for name in [name for name in self.workers if name.startswith("late")]:
            end(self.workers.pop(name))

    def wait_for_workers(self) -> None:
        """Wait until every worker has its process.

        Raises:
            AssertionError: if they don't start in time; with their logs.
        """
        deadline = time.monotonic() + STARTING_SECONDS
        while len(self.worker_processes()) < sum(w.poll() is None for w in self.workers.values()):
            if time.monotonic() > deadline:
                raise AssertionError(f"workers didn't start\n{self.logs()}")
            time.sleep(0.05)

    def set_allowed_failures(self, number: int) -> None:
        """Set how many deaths of workers a task survives before the scheduler gives it up."""
        with distributed.Client(
            self.address, security=self._security, set_as_default=False
        ) as client:
            client.run_on_scheduler(_set_allowed_failures, number)

    def worker_processes(self) -> dict[int, str]:
        """Return the names of running worker processes (not their nannies) by process id."""
        noted = {
            event["pid"]: event for event in self.orders.events() if event["event"] == "worker"
        }
        return {
            pid: event["name"] for pid, event in noted.items() if is_alive(pid, event["started"])
        }

    def logs(self) -> str:
        """Return the ends of all logs, without routine lines, for the message of a failed test."""
        ends = []
        for path in sorted(self.folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            found = [line for line in lines if " - INFO - " not in line]
            ends += [f"--- {path.name}", *found[-30:]]
        return "\n".join(ends)

    def _write_certificates(self) -> None:
        """Write the certificates of the cluster, which only its processes and clients have."""
        made = self._security.get_tls_config_for_role("client")
        self._certificates = [str(self.folder / f"{name}.pem") for name in ("ca", "cert", "key")]
        words = ("ca_file", "cert", "key")
        for path, word in zip(self._certificates, words, strict=True):
            Path(path).write_text(made[word])
        names = ("--tls-ca-file", "--tls-cert", "--tls-key")
        self._tls = [word for pair in zip(names, self._certificates, strict=True) for word in pair]

    def _start_scheduler(self) -> subprocess.Popen[bytes]:
        host, _, port = self.address.rpartition(":")
        return start(
            "dask", "scheduler", "--host", host, "--port", port, "--no-dashboard", *self._tls,
            log=self.folder / "scheduler.log", environment=self.settings,
        )  # fmt: skip


def _set_allowed_failures(number: int, dask_scheduler: Any) -> None:
    dask_scheduler.allowed_failures = number


def is_alive(pid: int, started: float | None = None) -> bool:
    """Return whether a process exists and isn't a zombie; it may be stopped.

    Args:
        pid: its id, which another process may have by now.
        started: its start, seconds since the epoch; None: whatever has that id.
    """
    try:
        process = psutil.Process(pid)
        same = started is None or abs(process.create_time() - started) < SAME_START_SECONDS
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_stopped(pid: int) -> bool:
    """Return whether a process exists and is stopped."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False

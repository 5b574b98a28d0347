"""Starting a scheduler and its workers on this machine, for this process alone.

Whoever may talk to a scheduler or a worker can run code as its user, and loopback is open to every
user of a machine. So worker processes speak TLS with a certificate that is made for this cluster
and known to its processes alone, and workers in this process listen on nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
from distributed import Nanny, Scheduler, Security, SpecCluster, Worker
from distributed.core import Status

from wsi_unet.user_folders import is_private

NO_ROUTES: dict[str, object] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
"""Settings by which Dask's HTTP servers, where they are started, have no pages about what runs."""


class SchedulerWithoutHttp(Scheduler):
    """Dask's scheduler without its HTTP server, for which Dask has no option."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """Start nothing."""


class WorkerWithoutHttp(Worker):
    """Dask's worker without its HTTP server, for which Dask has no option."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """Start nothing."""


START_SECONDS = 10.0
"""How long the start of a process may take, once it was decided."""


class NannyOfStartedWorkers(Nanny):
    """Dask's nanny, which isn't closed before the process of its worker has been started.

    When a worker dies as soon as it is there, Dask marks the next one as running before it has a
    process. If the nanny is closed then, Dask fails and leaves the whole cluster open.
    """

    async def close(self, *arguments: Any, **options: Any) -> Any:
        """Close the nanny and its worker."""
        deadline = time.monotonic() + START_SECONDS
        while self._awaits_process() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return await super().close(*arguments, **options)

    def _awaits_process(self) -> bool:
        worker = self.process
        if worker is None or worker.status != Status.running or worker.process is None:
            return False
        return worker.process.pid is None


@contextmanager
def private_scratch_folder() -> Iterator[None]:
    """Have what is started inside keep its files in a folder that only this user can write to.

    Dask puts that folder at the front of `sys.path`, and by default it is the same for all users:
    whoever made it first could run code in this process.
    """
    with _private_folder(dask.config.get("temporary-directory", None)) as folder:
        try:
            with dask.config.set({"temporary-directory": folder}):
                yield
        finally:
            sys.path[:] = [path for path in sys.path if not path.startswith(folder)]


@contextmanager
def _private_folder(parent: str | None) -> Iterator[str]:
    """Yield a folder of this user's, the same each time so that Dask tidies up after kills.

    Args:
        parent: where it is; None is the system's folder for temporary files.
    """
    folder = Path(parent or tempfile.gettempdir()) / f"wsi-unet-{os.getuid()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if is_private(folder):
        yield str(folder)
        return
    # Another user made it first.
    with tempfile.TemporaryDirectory(
        prefix=f"{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
    ) as own:
        yield own


def start_threads(threads: int, *, silence: str | None) -> SpecCluster:
    """Start a scheduler and a worker in this process, which listen on nothing.

    Args:
        threads: task threads.
        silence: the level from which on Dask's log messages are shown; None changes nothing.
    """
    # The certificates that Dask's configuration may name are for other clusters.
    security = Security(require_encryption=False, tls_ca_file=None)
    options = {"protocol": "inproc://", "security": security}
    worker = _worker_options(threads, silence)
    return SpecCluster(
        scheduler={"cls": SchedulerWithoutHttp, "options": options | {"dashboard": False}},
        workers={0: {"cls": WorkerWithoutHttp, "options": options | worker}},
        security=security,
        silence_logs=silence,
        name="wsi-unet",
    )


def start_processes(
    environments: Sequence[Mapping[str, str]], *, threads: int, silence: str | None
) -> SpecCluster:
    """Start a scheduler in this process and worker processes, all on loopback and authenticated.

    Args:
        environments: for each process, what is added to its environment.
        threads: task threads per process.
        silence: the level from which on Dask's log messages are shown; None changes nothing.
    """
    security = Security.temporary()
    options = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    worker = _worker_options(threads, silence) | {"worker_class": WorkerWithoutHttp}
    return SpecCluster(
        scheduler={
            "cls": SchedulerWithoutHttp,
            "options": options | {"port": 0, "dashboard": False},
        },
        workers={
            number: {
                "cls": NannyOfStartedWorkers,
                "options": options | worker | {"env": dict(environment)},
            }
            for number, environment in enumerate(environments)
        },
        security=security,
        silence_logs=silence,
        name="wsi-unet",
    )


def _worker_options(threads: int, silence: str | None) -> dict[str, Any]:
    return {"nthreads": threads, "memory_limit": 0, "silence_logs": silence}

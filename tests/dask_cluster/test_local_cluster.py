"""Worker processes of this process's own cluster."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from distributed.core import Status
from distributed.nanny import WorkerProcess
from distributed.process import AsyncProcess
from support.clusters import until

from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions


def test_a_cluster_is_closed_while_a_worker_that_died_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dask marks it as running too early if the one before died at once; here it always does."""
    start: Callable[[AsyncProcess], Awaitable[None]] = AsyncProcess.start
    begun: list[AsyncProcess] = []
    with open_client(ClusterOptions(workers=1)) as client:
        cluster: Any = client.cluster
        (nanny,) = cluster.workers.values()

        async def start_late(process: AsyncProcess) -> None:
            worker: WorkerProcess = nanny.process
            worker.status = Status.running
            worker.running.set()
            begun.append(process)
            await asyncio.sleep(0.5)
            await start(process)

        monkeypatch.setattr(AsyncProcess, "start", start_late)
        os.kill(nanny.pid, signal.SIGKILL)
        until(lambda: bool(begun), "the next worker is started")
    assert nanny.status == Status.closed
    assert not begun[0].is_alive()

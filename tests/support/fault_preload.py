"""The preload of the fault harness's workers (`dask worker --preload`): notes blocks, obeys orders.

Blocks are made to last a while, so that faults hit them. The product knows nothing of this: its
functions are replaced from outside.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from support.fault_orders import Orders

ORDERS = "WSI_UNET_FAULT_ORDERS"
"""Environment variable: the folder of the orders."""

SECONDS = "WSI_UNET_FAULT_SECONDS"
"""Environment variable: seconds that a block lasts at least."""

HANG_SECONDS = 300.0
SLOW_SECONDS = 8.0
"""How long a slow block lasts, unless the order is taken back before."""


def dask_setup(worker: Any) -> None:
    """Prepare a worker process; Dask calls this before its first task."""
    orders = Orders(Path(os.environ[ORDERS]))
    install(orders, float(os.environ[SECONDS]))
    started = psutil.Process().create_time()
    orders.note("worker", name=str(worker.name), parent=os.getppid(), started=started)


def install(orders: Orders, seconds: float) -> None:
    """Watch every block that this process computes."""
    from wsi_unet.segmentation.worker import image_block, label_block

    for module in (label_block, image_block):
        module.run_once = watched(module.run_once, orders, seconds)  # type: ignore[attr-defined]
    make_store_fail(orders)


def watched(run_once: Callable[..., Any], orders: Orders, seconds: float) -> Callable[..., Any]:
    """Return `run_once` with every block noted: requested, started, then marked or failed."""

    def watched_run(
        progress: Any, signature: str, index: Any, attempt: int, name: str, work: Any, boxes: Any
    ) -> Any:
        block, begun = f"{index[0]}.{index[1]}", False
        fields = {"run": progress.name, "block": block, "output": str(progress.store)}

        def watched_work(clock: Any) -> Any:
            nonlocal begun
            begun = True
            orders.note("begun", attempt=attempt, **fields)
            if progress.name != "image":
                obey(orders, block, fields)
            time.sleep(seconds)
            return work(clock)

        orders.note("asked", **fields)
        try:
            marker = run_once(progress, signature, index, attempt, name, watched_work, boxes)
        except Exception as error:
            orders.note("failed", error=str(error), **fields)
            raise
        if begun:
            orders.note("marked", **fields)
        return marker

    return watched_run


def obey(orders: Orders, block: str, fields: dict[str, Any]) -> None:
    """Obey the orders for this block."""
    if orders.take("die", block):
        orders.note("dying", **fields)
        os.kill(os.getpid(), signal.SIGKILL)
    wait_while(orders, "slow", SLOW_SECONDS)
    if orders.take("fail", block):
        raise OSError(errno.EIO, "a read error, as ordered")
    if orders.take("hang", block):
        orders.note("hanging", **fields)
        wait_while(orders, "hold", HANG_SECONDS)


def wait_while(orders: Orders, what: str, seconds: float) -> None:
    """Wait while an order stands, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and orders.take(what):
        time.sleep(0.1)


def make_store_fail(orders: Orders) -> None:
    """Let all writes of an output, and reads of its small files, fail while that is ordered.

    Every file is flushed before it gets its name, so no write succeeds meanwhile.
    """
    fsync, read_bytes = os.fsync, Path.read_bytes

    def failing_fsync(file: Any) -> None:
        if orders.take("store-errors"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    def failing_read(path: Path) -> bytes:
        if orders.take("store-errors") and (".wsi_unet" in path.parts or path.name == "zarr.json"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_bytes(path)

    os.fsync = failing_fsync  # type: ignore[assignment]
    Path.read_bytes = failing_read  # type: ignore[assignment, method-assign]

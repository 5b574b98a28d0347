"""Dask's scheduler: what it keeps of old tasks, and what to say when it is gone."""

from __future__ import annotations

from collections.abc import Callable

from dask.utils import key_split
from distributed import Client, Scheduler

from wsi_unet.errors import ClusterError


def make_task_forgetter() -> Callable[..., None]:
    """Return what makes a scheduler forget old tasks; defined in here, it is sent as code.

    So it works on schedulers that don't have this package.
    """

    def forget(dask_scheduler: Scheduler) -> None:
        key_split.cache_clear()  # the last 100,000 names, and what they begin with
        spans = dask_scheduler.extensions.get("spans")
        for span in spans.spans.values() if spans else ():
            # An entry for every single task, for ever (dask/distributed#7977).
            span.metadata["collections"][:] = [
                entry for entry in span.metadata["collections"] if entry != {"type": "Future"}
            ]

    return forget


def scheduler_lost_error(client: Client, *, kept: bool = True) -> ClusterError:
    """Return what to say when there is no scheduler any more.

    Args:
        client: of it.
        kept: whether what is done is stored.
    """
    where = "" if client.scheduler is None else f" at {client.scheduler.address}"
    done = "what is done is kept: " if kept else ""
    return ClusterError(
        f"the Dask scheduler{where} went away; {done}start it again and run the same command"
    )

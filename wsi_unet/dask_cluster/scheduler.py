"""Dask's scheduler: making it forget old tasks, and the error when it is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dask.utils import key_split
from distributed import Client, Scheduler
from distributed.comm.core import CommClosedError

from wsi_unet.errors import ClusterError


def make_task_forgetter() -> Callable[..., None]:
    """Return a function that makes a scheduler forget old tasks, for `run_on_scheduler`.

    It is defined inside this one and so sent as code: the scheduler needn't have this package.
    """

    def forget_tasks(dask_scheduler: Scheduler) -> None:
        key_split.cache_clear()  # the last 100,000 task names and their prefixes
        spans = dask_scheduler.extensions.get("spans")
        for span in spans.spans.values() if spans else ():
            # It keeps an entry for every single task forever (dask/distributed#7977).
            span.metadata["collections"][:] = [
                entry for entry in span.metadata["collections"] if entry != {"type": "Future"}
            ]

    return forget_tasks


@contextmanager
def broken_handshakes_as_closed() -> Iterator[None]:
    """Raise a ValueError inside as a CommClosedError.

    tornado raises it for a connection that is lost in the middle of TLS's handshake; at any other
    moment Dask raises the latter.
    """
    try:
        yield
    except ValueError as error:
        raise CommClosedError(str(error)) from error


def scheduler_lost_error(client: Client, *, kept: bool = True) -> ClusterError:
    """Return the error for a scheduler that is gone.

    Args:
        client: the scheduler's client.
        kept: whether finished blocks are stored.
    """
    where = "" if client.scheduler is None else f" at {client.scheduler.address}"
    done = "finished blocks are kept: " if kept else ""
    return ClusterError(
        f"the Dask scheduler{where} went away; {done}start it again and run the same command"
    )

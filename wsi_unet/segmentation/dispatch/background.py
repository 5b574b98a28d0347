"""Work in threads that don't keep the process from ending."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

THREAD_NAME = "wsi-unet"
"""Name of the threads that prepare and complete outputs."""

A = TypeVar("A")
T = TypeVar("T")


def run_in_background(work: Callable[[A], T], argument: A) -> Future[T]:
    """Start `work` in a daemon thread and return the future of its result.

    A pool's threads would be waited for when the process ends.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work(argument))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name=THREAD_NAME, daemon=True).start()
    return future

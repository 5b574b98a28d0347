"""A deadline for calls into libraries that might never return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def call_within(seconds: float, make: Callable[[], T], discard: Callable[[T], object]) -> T:
    """Return what a function makes, unless it takes too long.

    A call can't be stopped from outside, so it runs in a daemon thread, which is left behind if it
    is late: the process may go on, and end, without it.

    Args:
        seconds: how long to wait.
        make: the function.
        discard: disposes of what is made too late.

    Raises:
        TimeoutError: the function hasn't returned in time.
    """
    outcome: Future[T] = Future()

    threading.Thread(
        target=_keep_outcome, args=(outcome, make), name="within-deadline", daemon=True
    ).start()
    try:
        return outcome.result(seconds)
    except BaseException:
        if not outcome.done() or outcome.exception() is None:
            outcome.add_done_callback(lambda late: late.exception() or discard(late.result()))
        raise
    finally:
        del outcome  # an error's traceback refers to this frame


def _keep_outcome(outcome: Future[T], make: Callable[[], T]) -> None:
    try:
        outcome.set_result(make())
    except BaseException as error:  # raised again by whoever waits
        outcome.set_exception(error)
    finally:
        del outcome

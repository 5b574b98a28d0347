"""Ctrl-C and SIGTERM, which end a run cleanly and keep what is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Check = Callable[[], None]
"""Raises KeyboardInterrupt if the program is to end."""


@contextmanager
def interruptible() -> Iterator[Check]:
    """Turn Ctrl-C and SIGTERM into KeyboardInterrupt inside the block.

    Yields:
        A check to call now and then. Python drops an exception that happens to be raised inside a
        destructor or a garbage collector's callback, so that a signal is also remembered.

    Only the main thread may set signal handlers; elsewhere nothing changes.
    """
    arrived: list[int] = []

    def check() -> None:
        if arrived:
            raise KeyboardInterrupt

    def interrupt(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield check
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)

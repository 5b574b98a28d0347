"""Ctrl-C, SIGTERM and SIGHUP, which end a run cleanly and keep what is done."""

from __future__ import annotations

import errno
import os
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from wsi_unet.signals import interrupting_signals

Check = Callable[[], None]
"""Raises KeyboardInterrupt if the program is to end."""


@contextmanager
def interruptible() -> Iterator[Check]:
    """Turn Ctrl-C, SIGTERM and SIGHUP, unless it is ignored, into KeyboardInterrupt inside.

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
        if number == signal.SIGHUP:
            _redirect_lost_output()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    numbers = interrupting_signals()
    previous = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield check
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def _redirect_lost_output() -> None:
    """Send output to /dev/null if its terminal is gone, as each write would fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            descriptor = stream.fileno()
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
        except (OSError, ValueError):  # it has no descriptor, or is closed
            continue

"""Ctrl-C and processes that are started: a terminal sends it to all of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Put off Ctrl-C inside, and keep it for ever from the processes that are started here.

    They inherit that the signal is blocked; here it arrives afterwards. Signals are the main
    thread's, so in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # would unblock the signal when it starts by itself
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

"""Ctrl-C and SIGTERM: kept from processes that are started, held back while something is atomic.

Whatever runs for long is interrupted in one way: KeyboardInterrupt, raised by a signal or by the
caller's `on_progress`.
"""

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


@contextmanager
def interruptions_held() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM inside, for what must be atomic; they arrive at the end.

    Signals are the main thread's, so in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda n, _: arrived.append(n)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])

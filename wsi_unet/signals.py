"""Interruptions: kept from child processes, and held back while something must be atomic.

Everything that runs for long is interrupted by KeyboardInterrupt, which a signal (Ctrl-C, SIGTERM,
or SIGHUP when a terminal goes) or the caller's `on_progress` raises.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


def interrupting_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end a run; SIGHUP isn't one if it is ignored, as under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))


@contextmanager
def interruptions_kept_from_children() -> Iterator[None]:
    """Delay Ctrl-C and SIGHUP until the end, and keep them from the processes started inside.

    A terminal sends both to all its processes. These inherit that the signals are blocked. Only
    the main thread gets signals, so in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # started later, it would unblock SIGINT
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def interruptions_held() -> Iterator[None]:
    """Delay Ctrl-C, SIGTERM and SIGHUP until the end, for what must be atomic.

    Only the main thread gets signals, so in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    numbers = interrupting_signals()
    handlers = [signal.signal(number, lambda n, _: arrived.append(n)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])

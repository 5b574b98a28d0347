"""Ctrl-C and SIGTERM end a run cleanly, with what is done kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether the user, or the system, wants the program to end.

    The signal raises KeyboardInterrupt. Python drops an exception that happens to be raised inside
    a destructor or a garbage collector's callback, so the wish is also kept, to be looked at.
    """

    def __init__(self) -> None:
        self._wanted = False
        self._held = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if the program is to end."""
        if self._wanted:
            raise KeyboardInterrupt

    def arrive(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        self._wanted = True
        if not self._held:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only remember the signal inside, for what must not be done by halves."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Turn Ctrl-C and SIGTERM into KeyboardInterrupt inside the block, and remember them.

    Only the main thread may set signal handlers; elsewhere nothing changes.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, interruption.arrive) for number in numbers]
    try:
        yield interruption
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)

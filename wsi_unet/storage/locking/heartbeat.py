"""One thread per process that sends the heartbeats of every lock that the process holds."""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

THREAD_NAME = "wsi-unet-heartbeat"


class HasHeartbeat(Protocol):
    """Something that others take for dead unless it sends heartbeats."""

    def beat(self) -> float | None:
        """Send a heartbeat; return the seconds until the next one, None if there is none."""
        ...


class Heartbeat:
    """A thread that calls `beat` whenever it is due, and lives while there is anything to call."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: a forked process has neither the thread nor the right to the locks."""
        self._changed = threading.Condition()
        self._due: dict[HasHeartbeat, float] = {}
        self._thread: threading.Thread | None = None

    def add(self, alive: HasHeartbeat, seconds: float) -> None:
        """Call `alive.beat` in `seconds`, and again after as many seconds as it returns.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
                thread.start()
                self._thread = thread
            self._due[alive] = time.monotonic() + seconds
            self._changed.notify()

    def remove(self, alive: HasHeartbeat) -> None:
        """Stop calling it, if it is called at all."""
        with self._changed:
            self._due.pop(alive, None)
            self._changed.notify()

    def _run(self) -> None:
        while (alive := self._wait_for_due()) is not None:
            pause = alive.beat()
            with self._changed:
                if pause is None:
                    self._due.pop(alive, None)
                elif alive in self._due:
                    self._due[alive] = time.monotonic() + pause

    def _wait_for_due(self) -> HasHeartbeat | None:
        """Wait until something is due and return it; None if nothing is left to wait for."""
        with self._changed:
            while self._due:
                first = min(self._due, key=self._due.__getitem__)
                pause = self._due[first] - time.monotonic()
                if pause <= 0:
                    return first
                self._changed.wait(pause)
            self._thread = None
            return None


HEARTBEAT = Heartbeat()
"""This process's heartbeat."""

os.register_at_fork(after_in_child=HEARTBEAT.reset)

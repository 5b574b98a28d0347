"""One thread per process that gives signs of life for everything the process holds."""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

THREAD_NAME = "wsi-unet-heartbeat"


class HasHeartbeat(Protocol):
    """Something that others take for dead when it doesn't give a sign of life now and then."""

    def beat(self) -> float | None:
        """Give a sign of life; return seconds until the next one, None if there is to be none."""
        ...


class Heartbeat:
    """Calls `beat` of what was added, when it is due. Its thread lives while there is anything."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: a forked process has neither the thread nor a right to its work."""
        self._changed = threading.Condition()
        self._due: dict[HasHeartbeat, float] = {}
        self._thread: threading.Thread | None = None

    def add(self, beating: HasHeartbeat, seconds: float) -> None:
        """Call `beating.beat` in `seconds`, and again whenever it asks for it.

        Raises:
            RuntimeError: if no thread can be started.
        """
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
                thread.start()
                self._thread = thread
            self._due[beating] = time.monotonic() + seconds
            self._changed.notify()

    def remove(self, beating: HasHeartbeat) -> None:
        """Call it no more; it is no error if it wasn't called anyway."""
        with self._changed:
            self._due.pop(beating, None)
            self._changed.notify()

    def _run(self) -> None:
        while (beating := self._wait()) is not None:
            pause = beating.beat()
            with self._changed:
                if pause is None:
                    self._due.pop(beating, None)
                elif beating in self._due:
                    self._due[beating] = time.monotonic() + pause

    def _wait(self) -> HasHeartbeat | None:
        """Return what is due, once something is; None if nothing is left to wait for."""
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
"""The process's own."""

os.register_at_fork(after_in_child=HEARTBEAT.reset)

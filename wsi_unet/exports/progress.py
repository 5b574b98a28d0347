"""How far an export is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS_BETWEEN = 0.2


@dataclass(frozen=True)
class ExportProgress:
    """How far an export is.

    Attributes:
        result: name of the result that is being exported.
        done: what is written, in `unit`.
        total: all that there is; None if that isn't known yet.
        unit: "objects" or "px".
        seconds: since this result was begun.
    """

    result: str
    done: int
    total: int | None
    unit: str
    seconds: float


ExportCallback = Callable[[ExportProgress], None]


def ignore_progress(progress: ExportProgress) -> None:
    """Show nothing."""


class ExportMeter:
    """Counts what an export has written, and tells a callback several times per second."""

    def __init__(self, result: str, on_progress: ExportCallback) -> None:
        self._result, self._tell = result, on_progress
        self._started, self._told = time.monotonic(), 0.0
        self._done, self._total, self._unit = 0, 0, "px"

    def start(self, total: int, unit: str) -> None:
        """Say how much there is to write from now on."""
        self._done, self._total, self._unit, self._told = 0, total, unit, 0.0
        self.add(0)

    def add(self, done: int) -> None:
        """Say that so much more is written; what the callback raises ends the export."""
        self._done += done
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN:
            seconds = now - self._started
            self._tell(ExportProgress(self._result, self._done, self._total, self._unit, seconds))
            self._told = now

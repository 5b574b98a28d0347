"""Messages of the libraries that read slides, kept off the screen."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from typing_extensions import override

_KNOWN_WARNINGS = (
    "hamamatsu-format metadata parsing only partially implemented",
    "no special ventana-format metadata parsing implemented yet",
)


@contextmanager
def capture_library_messages() -> Iterator[list[str]]:
    """Silence tiffslide's usual warnings and collect what tifffile logs in this thread.

    Nothing is locked, so that a slide that is never opened keeps no other waiting.

    Yields:
        The first line of each message, as they come.
    """
    for message in _KNOWN_WARNINGS:
        # Filters belong to the whole process, so they aren't taken back while others may open.
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    logger = logging.getLogger("tifffile")
    collector = _Collector()
    logger.addFilter(collector)
    try:
        yield collector.lines
    finally:
        logger.removeFilter(collector)


class _Collector(logging.Filter):
    """Keeps the first line of each message of one thread, which no handler then sees."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self.lines: list[str] = []

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if threading.get_ident() != self._thread:
            return True
        if record.levelno >= logging.WARNING:
            self.lines.append((record.getMessage().splitlines() or [""])[0])
        return False

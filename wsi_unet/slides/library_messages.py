"""Messages of the libraries that read slides, kept off the screen."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_OPENING = threading.Lock()
_KNOWN_WARNINGS = (
    "hamamatsu-format metadata parsing only partially implemented",
    "no special ventana-format metadata parsing implemented yet",
)


@contextmanager
def capture_library_messages() -> Iterator[list[str]]:
    """Silence tiffslide's usual warnings and collect tifffile's log messages.

    Warning filters belong to the whole process, hence the lock.

    Yields:
        The first line of each message, as they come.
    """
    logger = logging.getLogger("tifffile")
    collector = _Collector()
    with _OPENING, warnings.catch_warnings():
        for message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(collector)
        try:
            yield collector.lines
        finally:
            logger.removeHandler(collector)
            logger.propagate = propagate


class _Collector(logging.Handler):
    """Keeps the first line of each message."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage().splitlines()[0])

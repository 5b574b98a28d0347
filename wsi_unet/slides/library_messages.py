"""Messages of the libraries that read slides, kept off the screen."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_KNOWN_WARNINGS = (
    "hamamatsu-format metadata parsing only partially implemented",
    "no special ventana-format metadata parsing implemented yet",
)


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Silence tiffslide's usual warnings and what tifffile logs in this thread.

    Nothing is locked, so that a slide that is never opened keeps no other waiting.
    """
    for message in _KNOWN_WARNINGS:
        # Filters belong to the whole process, so they aren't taken back while others may open.
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    logger = logging.getLogger("tifffile")
    thread = threading.get_ident()

    def is_of_another_thread(_record: logging.LogRecord) -> bool:
        return threading.get_ident() != thread

    logger.addFilter(is_of_another_thread)
    try:
        yield
    finally:
        logger.removeFilter(is_of_another_thread)

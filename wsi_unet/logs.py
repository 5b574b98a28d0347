"""What happens, as one JSON object per line; nothing is shown unless somebody asks for it.

    >>> event("slide finished", slide="a.svs", seconds=12.5)

An event is a record of the logger "wsi_unet" at level INFO, so whoever configures logging gets it
there too; its fields are in the record's attribute `fields`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from wsi_unet.errors import OptionError

log = logging.getLogger("wsi_unet")

_FIELDS = "fields"
_OTHERS = ("distributed", "distributed.client", "distributed.gc", "tornado.application", "asyncio")
"""Loggers of what Dask is made of. Those below "distributed" have levels of their own."""


def event(name: str, **fields: Any) -> None:
    """Say that something happened.

    Args:
        name: what, always in the same words.
        fields: to what, how much; anything that isn't JSON is written as text.
    """
    if log.isEnabledFor(logging.INFO):
        log.info(name, extra={_FIELDS: fields})


def warn(message: str, **fields: Any) -> None:
    """Say something that a person should see even if nobody asked: one line on stderr."""
    log.warning(message, extra={_FIELDS: fields})


def is_verbose() -> bool:
    """Whether everything is to be shown, what Dask logs about itself included."""
    return log.isEnabledFor(logging.DEBUG)


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object on one line: time (UTC, ISO 8601), event, its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head: dict[str, Any] = {"time": time, "event": record.getMessage()}
        if record.levelno != logging.INFO:
            head["level"] = record.levelname.lower()
        if record.exc_info:
            head["traceback"] = self.formatException(record.exc_info)
        return json.dumps(head | getattr(record, _FIELDS, {}), default=str)


@contextmanager
def writing_events(target: str) -> Iterator[None]:
    """Append the events that happen inside to a file, or write them to stderr.

    Args:
        target: path of the file, or "-" for stderr.

    Raises:
        OptionError: if the file can't be written.
    """
    with _opened(target) as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonLines())
        level = log.level
        log.addHandler(handler)
        log.setLevel(min(level or logging.INFO, logging.INFO))
        try:
            yield
        finally:
            log.setLevel(level)
            log.removeHandler(handler)


@contextmanager
def _opened(target: str) -> Iterator[TextIO]:
    if target == "-":
        yield sys.stderr
        return
    try:
        stream = Path(target).open("a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise OptionError(
            f"the log {target} can't be written: {error.strerror}; choose another place with --log"
        ) from error
    with stream:
        yield stream


class _Shown(logging.Handler):
    def __init__(self, show: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record)


@contextmanager
def logging_to_terminal(
    show: Callable[[logging.LogRecord], None], *, verbose: bool = False
) -> Iterator[None]:
    """Log as suits a person inside: warnings go to `show`, and what Dask says about itself nowhere.

    Args:
        show: shows one warning.
        verbose: leave Dask's messages as they are.
    """
    others = [] if verbose else [logging.getLogger(name) for name in _OTHERS]
    levels = [(logger, logger.level) for logger in (log, *others)]
    handler, propagate = _Shown(show), log.propagate
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.DEBUG if verbose else log.level)
    for other in others:
        other.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
        log.propagate = propagate
        log.removeHandler(handler)

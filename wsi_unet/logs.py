"""Logging: events for machines, as JSON lines, and warnings for people.

    >>> event("slide finished", slide="a.svs", seconds=12.5)

Both are records of the logger "wsi_unet", events at level INFO, warnings at level WARNING; their
fields are in the record's attribute `fields`. Events are shown only if somebody asks for them.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from typing_extensions import override

from wsi_unet.errors import OptionError

log = logging.getLogger("wsi_unet")

_FIELDS = "fields"
_DASK_LOGGERS = (
    "distributed",
    "distributed.client",
    "distributed.gc",
    "tornado.application",
    "asyncio",
)
"""The loggers of Dask's packages. Those below "distributed" have levels of their own."""


def event(name: str, **fields: Any) -> None:
    """Log that something happened.

    Args:
        name: what happened, in fixed words.
        fields: the details; what isn't JSON is written as text.
    """
    if log.isEnabledFor(logging.INFO):
        log.info(name, extra={_FIELDS: fields})


def warn(message: str, **fields: Any) -> None:
    """Show a warning to the user, on stderr unless logging is configured otherwise.

    Args:
        message: one line.
        fields: details for the log.
    """
    log.warning(message, extra={_FIELDS: fields})


def is_verbose() -> bool:
    """Return whether the user asked for all messages, those of Dask included."""
    return log.isEnabledFor(logging.DEBUG)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: its time (UTC, ISO 8601), event and fields."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head: dict[str, Any] = {"time": time, "event": record.getMessage()}
        if record.levelno != logging.INFO:
            head["level"] = record.levelname.lower()
        if record.exc_info:
            head["traceback"] = self.formatException(record.exc_info)
        return json.dumps(head | getattr(record, _FIELDS, {}), default=str)


class _EventHandler(logging.StreamHandler[TextIO]):
    """Writes until that fails, as on a full disk, which is no reason to end a run."""

    _failed = False

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if not self._failed:
            super().emit(record)

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._failed = True
        name = getattr(self.stream, "name", "")
        warn(f"the log {name} can't be written any more ({error.strerror}); the run goes on")


@contextmanager
def writing_events(target: str) -> Iterator[None]:
    """Append the events and warnings that are logged inside to a file, or write them to stderr.

    Args:
        target: the path of the file, or "-" for stderr.

    Raises:
        OptionError: the file can't be written.
    """
    with _opened(target) as stream:
        handler = _EventHandler(stream)
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
        stream = open(target, "a", encoding="utf-8", opener=_open_to_append)  # noqa: SIM115
    except OSError as error:
        nobody = error.errno == errno.ENXIO
        reason = "it is a named pipe that nobody reads" if nobody else error.strerror
        raise OptionError(
            f"the log {target} can't be written: {reason}; choose another `log`",
            option="log",
        ) from error
    try:
        yield stream
    finally:
        with suppress(OSError):  # what is left can't be written, as was said
            stream.close()


def _open_to_append(target: str, _: int) -> int:
    """Return a descriptor; one of a pipe only if it has a reader, without waiting for one.

    Raises:
        OSError: it can't be opened.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(target, flags, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor


class _CallbackHandler(logging.Handler):
    def __init__(self, show: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._show(record)


@contextmanager
def logging_to_terminal(
    show: Callable[[logging.LogRecord], None], *, verbose: bool = False
) -> Iterator[None]:
    """Log as suits a terminal: pass warnings to `show`, and silence Dask.

    Args:
        show: called with each warning.
        verbose: whether everything is logged, and Dask isn't silenced.
    """
    loggers = [log, *([] if verbose else map(logging.getLogger, _DASK_LOGGERS))]
    levels = [(logger, logger.level) for logger in loggers]
    handler, propagate = _CallbackHandler(show), log.propagate
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.DEBUG if verbose else log.level)
    keep_dask_silent()
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
        log.propagate = propagate
        log.removeHandler(handler)


def keep_dask_silent() -> None:
    """Silence Dask inside `logging_to_terminal`; once more after its import, which sets levels."""
    if not is_verbose() and any(isinstance(handler, _CallbackHandler) for handler in log.handlers):
        for name in _DASK_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

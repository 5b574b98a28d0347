"""Options that say where blocks are computed, and where a log of it goes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any, Literal

import click
from typing_extensions import override

import wsi_unet
from wsi_unet.errors import OptionError
from wsi_unet_cli.common.output import say
from wsi_unet_cli.common.text import printable, speak

PEM = click.Path(exists=True, dir_okay=False, readable=True)


def parse_workers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | Literal["auto"] | None:
    """Parse `N` or `auto`."""
    if value is None or value == "auto":
        return value  # type: ignore[return-value]
    if value.isascii() and value.isdecimal() and int(value) > 0:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a number of processes above 0 nor 'auto'.")


_OPTIONS = (
    click.option(
        "--workers",
        callback=parse_workers,
        metavar="N|auto",
        help="Number of local worker processes; auto: one per GPU.  "
        "[default: compute in this process]",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS|FILE",
        help="Compute on a Dask cluster: the address of its scheduler, or the .json file that the "
        "scheduler wrote it to.",
    ),
    click.option(
        "--tls-ca",
        type=PEM,
        metavar="PEM",
        help="Certificate of the authority that signs the cluster's certificates.",
    ),
    click.option("--tls-cert", type=PEM, metavar="PEM", help="Certificate of this client."),
    click.option(
        "--tls-key",
        type=PEM,
        metavar="PEM",
        help="Key of this client, if it isn't in the certificate's file.",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        help="Allow a scheduler on another machine without TLS. Whoever reaches its ports can run "
        "code there, and through it here.",
    ),
    click.option(
        "--max-retries",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        metavar="N",
        help="Number of times that a failed block is tried again.",
    ),
    click.option(
        "--performance-report",
        metavar="FILE.html",
        help="Write Dask's performance report of the run; needs bokeh.",
    ),
    click.option(
        "--log",
        "log_file",
        metavar="FILE",
        help="Append events to this file, one JSON object per line; - is stderr.",
    ),
)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add options that reach the command as `cluster`, a `ClusterOptions`, and `log_file`."""

    @functools.wraps(command)
    def collected(*args: Any, **options: Any) -> Any:
        given = {field.name: options.pop(field.name) for field in fields(wsi_unet.ClusterOptions)}
        try:
            cluster = wsi_unet.ClusterOptions(**given)
        except OptionError as error:
            raise click.UsageError(speak(str(error))) from error
        return command(*args, cluster=cluster, **options)

    decorated: Callable[..., Any] = collected
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


@contextmanager
def logging_to(log_file: str | None, *, verbose: bool) -> Iterator[None]:
    """Write events to a file inside, show warnings as lines, and keep Dask's own log off stderr.

    Args:
        log_file: the file of `--log`.
        verbose: show Dask's own log as well.

    Raises:
        OptionError: the file can't be written.
    """
    from wsi_unet.logs import logging_to_terminal, writing_events

    def show(record: logging.LogRecord) -> None:
        say(f"warning: {speak(record.getMessage())}", err=True)

    with ExitStack() as stack:
        stack.enter_context(logging_to_terminal(show, verbose=verbose))
        if verbose:
            stack.enter_context(_printable_dask_log())
        if log_file is not None:
            stack.enter_context(writing_events(log_file))
        yield


@contextmanager
def _printable_dask_log() -> Iterator[None]:
    """Make what Dask logs printable inside; it quotes errors of tasks, and so of files."""
    import distributed  # noqa: F401 (it sets up its handlers)

    handlers = logging.getLogger("distributed").handlers
    formatters = [handler.formatter for handler in handlers]
    for handler, formatter in zip(handlers, formatters, strict=True):
        handler.setFormatter(_PrintableFormatter(formatter or logging.Formatter()))
    try:
        yield
    finally:
        for handler, formatter in zip(handlers, formatters, strict=True):
            handler.setFormatter(formatter)


class _PrintableFormatter(logging.Formatter):
    """Formats as another formatter, in printable lines."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    @override
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, self._formatter.format(record).splitlines()))

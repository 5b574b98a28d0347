"""Progress of a run on stderr: a live bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import click

from wsi_unet_cli.common.failures import printable
from wsi_unet_cli.common.output import duration, stderr_console

if TYPE_CHECKING:
    from rich.progress import Progress

    from wsi_unet.segmentation.report import RunProgress

SECONDS_BETWEEN_LINES = 10.0


class Display(AbstractContextManager["Display"], Protocol):
    """Something that shows a run's progress while it is entered."""

    def __call__(self, progress: RunProgress) -> None:
        """Show where the run is."""


def progress_display(title: str, *, quiet: bool) -> Display:
    """Return the display that suits stderr.

    Args:
        title: what is being worked on, for people.
        quiet: show nothing at all.
    """
    if quiet:
        return Silence()
    return Bar(title) if sys.stderr.isatty() else Lines(title)


def numbers(progress: RunProgress) -> str:
    """Return blocks, speed, time left and how busy the device is, as far as they are known."""
    if not progress.blocks_total:
        return ""
    parts = [f"{progress.blocks_done}/{progress.blocks_total} blocks"]
    if progress.blocks_failed:
        parts.append(f"{progress.blocks_failed} failed")
    if progress.mpx_per_s:
        parts.append(f"{progress.mpx_per_s:.2f} Mpx/s")
    if progress.seconds_left:
        parts.append(f"{duration(progress.seconds_left)} left")
    if progress.device_busy:
        parts.append(f"device {100 * progress.device_busy:.0f} % busy")
    return " · ".join(parts)


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, progress: RunProgress) -> None:
        """Show nothing."""


class Lines:
    """One line per phase, and one now and then in between: for logs."""

    def __init__(self, title: str) -> None:
        self._title = printable(title)
        self._phase: str | None = None
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, progress: RunProgress) -> None:
        """Print a line when the phase has changed or the last one is long ago."""
        if progress.phase == self._phase and progress.seconds < self._next:
            return
        self._phase = progress.phase
        self._next = progress.seconds + SECONDS_BETWEEN_LINES
        parts = (self._title, progress.phase, numbers(progress))
        click.echo(": ".join(filter(None, parts)), err=True)


class Bar:
    """A bar that disappears when the run ends."""

    def __init__(self, title: str) -> None:
        self._title = printable(title)
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=stderr_console(),
            transient=True,
        )
        self._bar.add_task(self._title, total=None, numbers="")
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: RunProgress) -> None:
        """Move the bar."""
        if self._bar is None:
            return
        self._bar.update(
            self._bar.task_ids[0],
            description=f"{self._title} {progress.phase}",
            completed=progress.blocks_done + progress.blocks_failed,
            total=progress.blocks_total,
            numbers=numbers(progress),
        )

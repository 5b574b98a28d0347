"""Progress of a cohort on stderr: live bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import click

from wsi_unet_cli.common.failures import printable
from wsi_unet_cli.common.output import duration, stderr_console
from wsi_unet_cli.common.progress import SECONDS_BETWEEN_LINES, numbers

if TYPE_CHECKING:
    from rich.progress import Progress

    from wsi_unet import CohortProgress

MOST_ACTIVE = 6
"""Slides that have a line of their own on a terminal."""

LONGEST_NAME = 40


class CohortDisplay(AbstractContextManager["CohortDisplay"], Protocol):
    """Something that shows a cohort's progress while it is entered."""

    def __call__(self, progress: CohortProgress, seconds_left: float | None) -> None:
        """Show where the cohort is."""

    def aside(self) -> AbstractContextManager[None]:
        """Make room for what is printed inside."""


def cohort_display(*, quiet: bool) -> CohortDisplay:
    """Return the display that suits stderr; nothing at all when `quiet`."""
    if quiet:
        return CohortSilence()
    return CohortBars() if sys.stderr.isatty() else CohortLines()


def cohort_numbers(progress: CohortProgress, seconds_left: float | None) -> str:
    """Return slides, blocks, speed, time left and how busy the devices are, as far as known."""
    total = "" if progress.slides_total is None else f"/{progress.slides_total}"
    parts = [f"{progress.slides_done}{total} slides"]
    if progress.slides_failed:
        parts.append(f"{progress.slides_failed} failed")
    if progress.blocks_done:
        parts.append(f"{progress.blocks_per_s:.2f} blocks/s")
        parts.append(f"{progress.mpx_per_s:.2f} Mpx/s")
    if seconds_left:
        parts.append(f"{duration(seconds_left)} left")
    if progress.device_busy:
        parts.append(f"device {100 * progress.device_busy:.0f} % busy")
    return " · ".join(parts)


class CohortSilence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, progress: CohortProgress, seconds_left: float | None) -> None:
        """Show nothing."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Nothing is in the way."""
        yield


class CohortLines(CohortSilence):
    """A line now and then: for logs."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, progress: CohortProgress, seconds_left: float | None) -> None:
        """Print a line when the last one is long ago."""
        if progress.seconds < self._next:
            return
        self._next = progress.seconds + SECONDS_BETWEEN_LINES
        click.echo(f"cohort: {cohort_numbers(progress, seconds_left)}", err=True)


class CohortBars:
    """A bar for the whole and a line for each slide being worked on; they go away at the end."""

    def __init__(self) -> None:
        self._bars: Progress | None = None

    def __enter__(self) -> Self:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=stderr_console(),
            transient=True,
            # What is printed on stdout must stay there.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bars.add_task("cohort", total=None, numbers="")
        for _ in range(MOST_ACTIVE):
            self._bars.add_task("", total=None, numbers="", visible=False)
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, progress: CohortProgress, seconds_left: float | None) -> None:
        """Move the bars."""
        bars = self._bars
        if bars is None:
            return
        whole, *slots = bars.task_ids
        bars.update(
            whole,
            completed=progress.slides_done,
            total=progress.slides_total,
            numbers=cohort_numbers(progress, seconds_left),
        )
        for number, slot in enumerate(slots):
            if number >= len(progress.active):
                bars.update(slot, visible=False)
                continue
            slide = progress.active[number]
            bars.update(
                slot,
                description=f"  {printable(slide.slide)[-LONGEST_NAME:]} {slide.phase}",
                completed=slide.blocks_done + slide.blocks_failed,
                total=slide.blocks_total or None,
                numbers=numbers(slide),
                visible=True,
            )

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bars away while something else is printed."""
        if self._bars is None:
            yield
            return
        self._bars.stop()
        try:
            yield
        finally:
            self._bars.start()

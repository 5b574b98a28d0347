"""Progress of a training on stderr: a live bar on a terminal, plain lines elsewhere, or nothing."""

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

    from wsi_unet.training.report import TrainingProgress

SECONDS_BETWEEN_LINES = 30.0

STARVING = 0.15
"""Share of the time spent waiting for samples from which it is shown."""


class TrainingDisplay(AbstractContextManager["TrainingDisplay"], Protocol):
    """Something that shows a training's progress while it is entered."""

    def __call__(self, progress: TrainingProgress) -> None:
        """Show where it is."""


def training_display(title: str, *, quiet: bool) -> TrainingDisplay:
    """Return the display that suits stderr.

    Args:
        title: the model's name.
        quiet: show nothing at all.
    """
    if quiet:
        return TrainingSilence()
    return TrainingBar(title) if sys.stderr.isatty() else TrainingLines(title)


def training_numbers(progress: TrainingProgress) -> str:
    """Return iterations, loss, Dice and time left, as far as they are known."""
    if not progress.iteration:
        return ""
    parts = [f"{progress.iteration}/{progress.iterations} iterations"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.dice is not None:
        best = progress.best_dice
        best_too = "" if best is None or best == progress.dice else f" (best {best:.3f})"
        parts.append(f"Dice {progress.dice:.3f}{best_too}")
    if progress.seconds_left:
        parts.append(f"{duration(progress.seconds_left)} left")
    if progress.waited > STARVING:
        parts.append(f"waits for data {100 * progress.waited:.0f} % of the time")
    return " · ".join(parts)


class TrainingSilence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, progress: TrainingProgress) -> None:
        """Show nothing."""


class TrainingLines:
    """A line at the beginning, after every measurement, and now and then in between: for logs."""

    def __init__(self, title: str) -> None:
        self._title = printable(title)
        self._shown = ""
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, progress: TrainingProgress) -> None:
        """Print a line when something is new or the last one is long ago."""
        measured = progress.dice is not None and f" {progress.dice:.6f}"
        state = f"{progress.phase if progress.phase != 'measuring' else 'training'}{measured}"
        if progress.phase == "measuring" or (
            state == self._shown and progress.seconds < self._next
        ):
            return
        self._shown, self._next = state, progress.seconds + SECONDS_BETWEEN_LINES
        parts = (self._title, progress.phase, training_numbers(progress))
        click.echo(": ".join(filter(None, parts)), err=True)


class TrainingBar:
    """A bar that disappears when the training ends."""

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

    def __call__(self, progress: TrainingProgress) -> None:
        """Move the bar."""
        if self._bar is None:
            return
        self._bar.update(
            self._bar.task_ids[0],
            description=f"{self._title} {progress.phase}",
            completed=progress.iteration,
            total=progress.iterations,
            numbers=training_numbers(progress),
        )

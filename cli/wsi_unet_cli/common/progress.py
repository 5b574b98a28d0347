"""Progress on stderr: a live bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from typing_extensions import override

from wsi_unet_cli.common.output import say, stderr_console
from wsi_unet_cli.common.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 10.0

MAX_LINES_BELOW = 6
"""Slides that have a line of their own below the bar."""

LONGEST_TITLE = 40
"""Letters of the title of such a line."""


@dataclass(frozen=True)
class Snapshot:
    """The figures that a display shows at one moment.

    Attributes:
        figures: how far it is, in words.
        phase: what is being done, in a word; "" if there is nothing to tell.
        done: number of steps done.
        total: number of steps; None if that isn't known yet.
        seconds: since the start.
        state: what plain lines report: a line is written when it changes, and now and then while it
            stays. None writes none.
        active: slides being worked on, by title; each has a line below the bar.
    """

    figures: str
    phase: str = ""
    done: int = 0
    total: int | None = None
    seconds: float = 0.0
    state: str | None = ""
    active: tuple[tuple[str, Snapshot], ...] = ()


Moment = TypeVar("Moment")
"""What the library reports as progress."""
Describe = Callable[[Moment], Snapshot]


class Silence(Generic[Moment]):
    """A display that shows nothing, and the base of those that do."""

    def __init__(self, title: str, describe: Describe[Moment]) -> None:
        """Prepare a display, which shows something while it is entered.

        Args:
            title: what is being worked on.
            describe: says what to show of a moment.
        """
        self._title = printable(title)
        self._describe = describe

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def __call__(self, progress: Moment) -> None:
        """Show how far it is."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Make room for what is printed inside."""
        yield


class Lines(Silence[Moment]):
    """Writes a line when something is new, and one now and then: for logs."""

    def __init__(
        self,
        title: str,
        describe: Describe[Moment],
        seconds_between: float = SECONDS_BETWEEN_LINES,
    ) -> None:
        super().__init__(title, describe)
        self._between = seconds_between
        self._state: str | None = None
        self._next = 0.0

    @override
    def __call__(self, progress: Moment) -> None:
        snapshot = self._describe(progress)
        unchanged = snapshot.state == self._state and snapshot.seconds < self._next
        if snapshot.state is None or unchanged:
            return
        self._state, self._next = snapshot.state, snapshot.seconds + self._between
        words = (self._title, snapshot.phase, snapshot.figures)
        say(": ".join(filter(None, words)), err=True)


class Bar(Silence[Moment]):
    """Draws a bar, with a line below it for each active slide; they disappear at the end."""

    def __init__(self, title: str, describe: Describe[Moment]) -> None:
        super().__init__(title, describe)
        self._bars: Progress | None = None

    @override
    def __enter__(self) -> Self:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[figures]}", markup=False),
            console=stderr_console(),
            transient=True,
            redirect_stdout=False,  # results go there
        )
        self._bars.add_task(self._title, total=None, figures="")
        self._bars.start()
        return self

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    @override
    def __call__(self, progress: Moment) -> None:
        bars = self._bars
        if bars is None:
            return
        whole = self._describe(progress)
        below = [(f"  {printable(t)[-LONGEST_TITLE:]}", one) for t, one in whole.active]
        shown = [(self._title, whole), *below[:MAX_LINES_BELOW]]
        while len(bars.task_ids) < len(shown):
            bars.add_task("", total=None, figures="")
        for task in bars.task_ids[len(shown) :]:
            bars.update(task, visible=False)
        for task, (title, snapshot) in zip(bars.task_ids, shown, strict=False):
            bars.update(
                task,
                description=printable(f"{title} {snapshot.phase}".rstrip()),
                completed=snapshot.done,
                total=snapshot.total,
                figures=printable(snapshot.figures),
                visible=True,
            )

    @override
    @contextmanager
    def aside(self) -> Iterator[None]:
        if self._bars is None:
            yield
            return
        self._bars.stop()
        try:
            yield
        finally:
            self._bars.start()


def open_display(
    title: str,
    describe: Describe[Moment],
    *,
    quiet: bool,
    seconds_between: float = SECONDS_BETWEEN_LINES,
) -> Silence[Moment]:
    """Return the display that suits stderr.

    Args:
        title: what is being worked on.
        describe: says what to show of a moment.
        quiet: show nothing at all.
        seconds_between: time between plain lines while nothing is new.
    """
    if quiet:
        return Silence(title, describe)
    if sys.stderr.isatty():
        return Bar(title, describe)
    return Lines(title, describe, seconds_between)

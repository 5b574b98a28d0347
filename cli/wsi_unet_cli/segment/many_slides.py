"""`wsi-unet segment` with several slides: a cohort, with its report."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING

import click

import wsi_unet
from wsi_unet_cli.common.failures import printable, show_error
from wsi_unet_cli.common.outcome import (
    EXIT_FAILED,
    EXIT_OK,
    INTERRUPTED,
    UNFINISHED,
    CommandOutcome,
)
from wsi_unet_cli.common.output import duration, print_facts
from wsi_unet_cli.common.reports import exactness_in_words, show_report
from wsi_unet_cli.segment.cohort_progress import CohortDisplay, cohort_display
from wsi_unet_cli.segment.request import Request

if TYPE_CHECKING:
    from wsi_unet import CohortProgress, Report, SlideOutcome
    from wsi_unet.cohorts.report import CohortReport
    from wsi_unet.cohorts.rows import Row


def segment_slides(asked: Request) -> CommandOutcome:
    """Segment the slides of a cohort, showing progress, and keep its report up to date."""
    from wsi_unet.cohorts.report import CohortReport
    from wsi_unet.models.inference.devices import keep_freed_memory

    keep_freed_memory()
    folder = asked.cohort.folder or ""
    table = CohortReport(folder, asked.cohort.slides, skipped=asked.cohort.skipped)
    cohort = _Cohort(asked, table)
    with cohort_display(quiet=asked.quiet) as display:
        cohort.run(display)
    if asked.as_json:
        _print_json(cohort.exit_code, table)
    else:
        cohort.show_total()
    return CommandOutcome(cohort.exit_code, cohort.why, begun=cohort.begun)


class _Cohort:
    """A cohort being segmented, as it is shown."""

    def __init__(self, asked: Request, table: CohortReport) -> None:
        self._asked = asked
        self._table = table
        self._last: CohortProgress | None = None
        self._worked = 0
        self._errors: set[str] = set()
        self._unwritten = False
        self.interrupted = False
        self.begun = False

    @property
    def exit_code(self) -> int:
        """0 if every slide is finished and the report says so, otherwise 1."""
        finished = self._table.finished and not (self._unwritten or self.interrupted)
        return EXIT_OK if finished else EXIT_FAILED

    @property
    def why(self) -> str | None:
        """What to say before the command that goes on."""
        if self.interrupted:
            return INTERRUPTED
        return None if self._table.finished else UNFINISHED

    def run(self, display: CohortDisplay) -> None:
        """Segment them all, until somebody wants it to end."""

        def on_progress(progress: CohortProgress) -> None:
            self._asked.interruption.check()
            self._last = progress
            self._table.add_progress(progress)
            display(progress, self._seconds_left(progress))

        outcomes = wsi_unet.segment_cohort(
            self._table.jobs(), self._asked.cluster, on_progress=on_progress
        )
        try:
            for outcome in outcomes:
                with self._asked.interruption.held(), display.aside():
                    self._take(outcome)
            self._asked.interruption.check()
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            with self._asked.interruption.held(), display.aside():
                self._close()

    def show_total(self) -> None:
        """Print what came of the whole."""
        counts, last = self._table.counts, self._last
        total = len(self._asked.cohort.slides)
        speed = ""
        if last is not None and last.blocks_done:
            speed = (
                f"{duration(last.seconds)} at {last.mpx_per_s:.2f} Mpx/s and "
                f"{last.blocks_per_s:.2f} blocks/s, device {100 * last.device_busy:.0f} % busy"
            )
        print_facts(
            f"{counts.get('finished', 0)} of {total} slides finished",
            [
                *((status, str(n)) for status, n in counts.items() if status != "finished"),
                ("time", speed),
                ("report", self._table.csv_path),
            ],
        )

    def _take(self, outcome: SlideOutcome) -> None:
        """Note and print what came of a slide."""
        row = self._table.add_outcome(outcome)
        report = outcome.report
        if report is not None:
            self.begun = True
            self._worked += report.blocks.done > report.blocks.resumed
            if not self._asked.as_json or not self._asked.quiet:
                click.echo(_line(row, report), err=self._asked.as_json)
            if self._asked.verbose and not self._asked.as_json:
                show_report(report, verbose=True)
        if outcome.error is not None and str(outcome.error) not in self._errors:
            if report is not None:  # the cluster's: every slide has it
                self._errors.add(str(outcome.error))
            show_error(outcome.error, what=outcome.job.slide, verbose=self._asked.verbose)

    def _close(self) -> None:
        """Write the report for the last time; what can't be written is said and costs the exit."""
        try:
            self._table.close(interrupted=self.interrupted)
        except wsi_unet.OutputError as error:
            self._unwritten = True
            show_error(error, verbose=self._asked.verbose)

    def _seconds_left(self, progress: CohortProgress) -> float | None:
        """Estimate from slides that took work; those finished before take next to no time."""
        begun = sum(
            slide.blocks_done / slide.blocks_total
            for slide in progress.active
            if slide.blocks_total and slide.pixels_done
        )
        worked = self._worked + begun
        counts = self._table.counts
        left = counts.get("waiting", 0) + counts.get("running", 0) - begun
        return progress.seconds / worked * left if worked else None


def _line(row: Row, report: Report) -> str:
    """Return what came of a slide, in one line."""
    blocks, name = report.blocks, printable(PurePath(row["slide"]).name)
    because = report.inexact_because
    inexact = [exactness_in_words(report.exactness, because)] if because else []
    if report.state == "finished" and blocks.done == blocks.resumed:
        return ", ".join([f"{name}: finished, nothing was left to compute", *inexact])
    parts = [f"{blocks.done} of {blocks.total} blocks"]
    if blocks.failed:
        parts.append(f"{blocks.failed} failed")
    parts += [f"{duration(report.seconds)} at {report.mpx_per_s:.2f} Mpx/s", *inexact]
    beware = "".join(f"\n  beware  {printable(warning)}" for warning in report.warnings)
    return f"{name}: {report.state}, {', '.join(parts)}{beware}"


def _print_json(code: int, table: CohortReport) -> None:
    """Print one document, a slide at a time: there may be many."""
    click.echo(f'{{\n "exit_code": {code},\n "slides": [')
    between = ""
    for line in table.lines():
        row = json.loads(line)
        # What a single slide's document calls its state.
        click.echo(between + json.dumps({"state": row["status"], **row}), nl=False)
        between = ",\n"
    click.echo("\n ]\n}")

"""`wsi-unet segment` with several slides: a cohort, with its report."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING

import wsi_unet
from wsi_unet.signals import interruptions_held
from wsi_unet.wording import count
from wsi_unet_cli.common.failures import show_error
from wsi_unet_cli.common.outcome import (
    EXIT_FAILED,
    EXIT_OK,
    INTERRUPTED,
    UNFINISHED,
    CommandOutcome,
)
from wsi_unet_cli.common.output import duration, print_facts, say, write_json
from wsi_unet_cli.common.progress import Silence, Snapshot, open_display
from wsi_unet_cli.common.reports import exactness_in_words, show_report
from wsi_unet_cli.common.text import speak_document
from wsi_unet_cli.segment.progress import describe_cohort
from wsi_unet_cli.segment.request import Request

if TYPE_CHECKING:
    from wsi_unet import CohortProgress, Report, SlideOutcome
    from wsi_unet.cohorts.report import CohortReport
    from wsi_unet.cohorts.rows import Row


def segment_slides(request: Request) -> CommandOutcome:
    """Segment the slides of a cohort, showing progress, and keep its report up to date."""
    from wsi_unet.cohorts.report import CohortReport
    from wsi_unet.models.inference.devices import keep_freed_memory

    keep_freed_memory()
    folder = request.cohort.folder or ""
    report = CohortReport(folder, request.cohort.slides, skipped=request.cohort.skipped)
    cohort = _CohortRun(request, report)
    with open_display("cohort", cohort.describe, quiet=request.quiet) as display:
        cohort.run(display)
    if request.as_json:
        _print_json(cohort.exit_code, report)
    else:
        cohort.show_total()
    return CommandOutcome(cohort.exit_code, cohort.reason, started=cohort.started)


class _CohortRun:
    """A cohort that is being segmented, shown as it goes.

    Attributes:
        interrupted: whether it was interrupted.
        started: whether anything was computed.
    """

    def __init__(self, request: Request, report: CohortReport) -> None:
        self._request = request
        self._report = report
        self._last: CohortProgress | None = None
        self._computed = 0
        self._shown_errors: set[str] = set()
        self._report_failed = False
        self.interrupted = False
        self.started = False

    @property
    def exit_code(self) -> int:
        """Exit code: 0 if every slide is finished and the report says so, otherwise 1."""
        finished = self._report.finished and not (self._report_failed or self.interrupted)
        return EXIT_OK if finished else EXIT_FAILED

    @property
    def reason(self) -> str | None:
        """What to say before the command that resumes."""
        if self.interrupted:
            return INTERRUPTED
        return None if self._report.finished else UNFINISHED

    def describe(self, progress: CohortProgress) -> Snapshot:
        """Describe how far the cohort is."""
        return describe_cohort(progress, self._seconds_left(progress))

    def run(self, display: Silence[CohortProgress]) -> None:
        """Segment all slides, unless interrupted."""

        def on_progress(progress: CohortProgress) -> None:
            self._request.check_interrupted()
            self._last = progress
            self._report.add_progress(progress)
            display(progress)

        for slide in self._request.cohort.slides:
            if slide.error is not None:
                show_error(slide.error, verbose=self._request.verbose)
        outcomes = wsi_unet.segment_cohort(
            self._report.jobs(), self._request.cluster, on_progress=on_progress
        )
        try:
            for outcome in outcomes:
                with interruptions_held(), display.aside():
                    self._add_outcome(outcome)
            self._request.check_interrupted()
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            # The report says how the cohort ended, also if a second signal arrives now.
            with suppress(KeyboardInterrupt), interruptions_held(), display.aside():
                self._close()

    def show_total(self) -> None:
        """Print how the cohort as a whole ended."""
        counts, last = self._report.counts, self._last
        total = len(self._request.cohort.slides)
        speed = ""
        if last is not None and last.blocks_done:
            speed = (
                f"{duration(last.seconds)} at {last.mpx_per_s:.2f} Mpx/s and "
                f"{last.blocks_per_s:.2f} blocks/s, device {100 * last.device_busy:.0f} % busy"
            )
        print_facts(
            f"{counts.get('finished', 0)} of {count(total, 'slide')} finished",
            [
                *((status, str(n)) for status, n in counts.items() if status != "finished"),
                ("time", speed),
                ("report", self._report.csv_path),
            ],
        )

    def _add_outcome(self, outcome: SlideOutcome) -> None:
        """Note and print how a slide ended."""
        row = self._report.add_outcome(outcome)
        report = outcome.report
        if report is not None:
            self.started = True
            self._computed += report.blocks.done > report.blocks.resumed
            if not self._request.as_json or not self._request.quiet:
                say(_line(row, report), err=self._request.as_json)
            if self._request.verbose and not self._request.as_json:
                show_report(report, verbose=True)
        if outcome.error is not None and str(outcome.error) not in self._shown_errors:
            if report is not None:  # an error of the cluster, which every slide has
                self._shown_errors.add(str(outcome.error))
            show_error(outcome.error, subject=outcome.job.slide, verbose=self._request.verbose)

    def _close(self) -> None:
        """Write the report for the last time; if that fails, say so and exit with 1."""
        try:
            self._report.close(interrupted=self.interrupted)
        except wsi_unet.OutputError as error:
            self._report_failed = True
            show_error(error, verbose=self._request.verbose)

    def _seconds_left(self, progress: CohortProgress) -> float | None:
        """Estimate the time left from computed slides; those finished before took next to none."""
        in_work = sum(
            slide.blocks_done / slide.blocks_total
            for slide in progress.active
            if slide.blocks_total and slide.pixels_done
        )
        computed = self._computed + in_work
        counts = self._report.counts
        left = counts.get("waiting", 0) + counts.get("running", 0) - in_work
        return progress.seconds / computed * left if computed else None


def _line(row: Row, report: Report) -> str:
    """Return how a slide ended; its warnings were shown when it began."""
    blocks, name = report.blocks, PurePath(row["slide"]).name
    because = report.inexact_because
    inexact = [exactness_in_words(report.exactness, because)] if because else []
    if report.state == "finished" and blocks.done == blocks.resumed:
        return ", ".join([f"{name}: finished, nothing was left to compute", *inexact])
    words = [f"{blocks.done} of {count(blocks.total, 'block')}"]
    if blocks.failed:
        words.append(f"{blocks.failed} failed")
    words += [f"{duration(report.seconds)} at {report.mpx_per_s:.2f} Mpx/s", *inexact]
    return f"{name}: {report.state}, {', '.join(words)}"


def _print_json(code: int, report: CohortReport) -> None:
    """Print one document, slide by slide: there may be many."""
    write_json(f'{{\n "exit_code": {code},\n "slides": [')
    separator = ""
    for line in report.lines():
        row = speak_document(json.loads(line))
        # A single slide's document calls its status "state".
        write_json(separator + json.dumps({"state": row["status"], **row}), nl=False)
        separator = ",\n"
    write_json("\n ]\n}")

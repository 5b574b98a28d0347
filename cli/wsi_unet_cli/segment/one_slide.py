"""`wsi-unet segment` with a single slide."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import wsi_unet
from wsi_unet_cli.common.failures import describe, exit_code, show_error
from wsi_unet_cli.common.outcome import (
    EXIT_FAILED,
    EXIT_OK,
    INCOMPLETE,
    INTERRUPTED,
    LOST,
    CommandOutcome,
)
from wsi_unet_cli.common.output import print_json
from wsi_unet_cli.common.progress import open_display
from wsi_unet_cli.common.reports import show_plan, show_report
from wsi_unet_cli.segment.progress import describe_planning, describe_run
from wsi_unet_cli.segment.request import Request

if TYPE_CHECKING:
    from wsi_unet import CohortProgress, SlideJob, SlideOutcome


def plan_slide(request: Request) -> CommandOutcome:
    """Plan the slide and show the plan."""
    from wsi_unet.cohorts.planning import plan_cohort

    job = _job(request)
    try:
        with open_display("plan", describe_planning, quiet=request.quiet) as display:
            ((_, planned),) = plan_cohort([job], request.cluster, on_progress=display)
    except KeyboardInterrupt:
        return _report_interruption(request)
    except Exception as error:
        planned = error
    if isinstance(planned, Exception):
        return _report_failure(request, planned)
    if not request.as_json:
        show_plan(planned)
    _print(request, EXIT_OK, {**planned.to_json(), "slide": job.slide, "state": "planned"})
    return CommandOutcome(EXIT_OK)


def segment_slide(request: Request) -> CommandOutcome:
    """Segment the slide, showing progress, and show the report."""
    try:
        outcome = _run(request)
    except KeyboardInterrupt:
        return _report_interruption(request)
    except Exception as failure:
        return _report_failure(request, failure)
    if outcome is None:
        return _report_interruption(request)
    report, error = outcome.report, outcome.error
    if report is None:
        return _report_failure(request, error or RuntimeError("there is no report"))
    code = EXIT_OK if report.state == "finished" else EXIT_FAILED
    document = {**report.to_json(), "slide": outcome.job.slide}
    if not request.as_json:
        show_report(report, verbose=request.verbose)
    if error is not None:
        show_error(error, subject=outcome.job.slide, verbose=request.verbose)
        code = exit_code(error)
        document["error"] = describe(error)
    _print(request, code, document)
    reasons = {"interrupted": INTERRUPTED, "incomplete": INCOMPLETE if error is None else LOST}
    return CommandOutcome(code, reasons.get(report.state), started=True)


def _run(request: Request) -> SlideOutcome | None:
    """Segment the slide; return None if it was interrupted before it began."""
    from wsi_unet.models.inference.devices import keep_freed_memory
    from wsi_unet.segmentation.report import RunProgress

    keep_freed_memory()
    job = _job(request)
    with open_display(PurePath(job.slide).name, describe_run, quiet=request.quiet) as display:

        def on_progress(progress: CohortProgress) -> None:
            request.check_interrupted()
            display(progress.active[0] if progress.active else RunProgress("opening"))

        display(RunProgress("opening"))
        outcomes = list(wsi_unet.segment_cohort([job], request.cluster, on_progress=on_progress))
    return outcomes[0] if outcomes else None


def _job(request: Request) -> SlideJob:
    (listed,) = request.cohort.slides
    return listed.job


def _report_interruption(request: Request) -> CommandOutcome:
    job = _job(request)
    document = {"slide": job.slide, "output": job.output, "state": "interrupted"}
    _print(request, EXIT_FAILED, document)
    return CommandOutcome(EXIT_FAILED, INTERRUPTED)


def _report_failure(request: Request, error: Exception) -> CommandOutcome:
    job, code = _job(request), exit_code(error)
    show_error(error, subject=job.slide, verbose=request.verbose)
    document = {
        "slide": job.slide,
        "output": job.output,
        "state": "failed",
        "error": describe(error),
    }
    _print(request, code, document)
    return CommandOutcome(code)


def _print(request: Request, code: int, document: dict[str, Any]) -> None:
    if request.as_json:
        print_json({"exit_code": code, "slides": [document]})

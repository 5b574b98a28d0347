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
from wsi_unet_cli.common.progress import progress_display
from wsi_unet_cli.common.reports import show_plan, show_report
from wsi_unet_cli.segment.request import Request

if TYPE_CHECKING:
    from wsi_unet import CohortProgress, SlideJob, SlideOutcome


def plan_slide(asked: Request) -> CommandOutcome:
    """Plan the slide and show the plan."""
    from wsi_unet.cohorts.planning import plan_cohort

    job = _job(asked)
    try:
        ((_, found),) = plan_cohort([job], asked.cluster)
    except KeyboardInterrupt:
        return _interrupted(asked)
    except Exception as error:
        found = error
    if isinstance(found, Exception):
        return _failed(asked, found)
    if not asked.as_json:
        show_plan(found)
    _print(asked, EXIT_OK, {**found.to_json(), "slide": job.slide, "state": "planned"})
    return CommandOutcome(EXIT_OK)


def segment_slide(asked: Request) -> CommandOutcome:
    """Segment the slide, showing progress, and show the report."""
    try:
        outcome = _outcome(asked)
    except KeyboardInterrupt:
        return _interrupted(asked)
    except Exception as error:
        return _failed(asked, error)
    if outcome is None:
        return _interrupted(asked)
    report, wrong = outcome.report, outcome.error
    if report is None:
        return _failed(asked, wrong or RuntimeError("nothing came of it"))
    code = EXIT_OK if report.state == "finished" else EXIT_FAILED
    document = {**report.to_json(), "slide": outcome.job.slide}
    if not asked.as_json:
        show_report(report, verbose=asked.verbose)
    if wrong is not None:
        show_error(wrong, what=outcome.job.slide, verbose=asked.verbose)
        code = exit_code(wrong)
        document["error"] = describe(wrong)
    _print(asked, code, document)
    why = {"interrupted": INTERRUPTED, "incomplete": INCOMPLETE if wrong is None else LOST}
    return CommandOutcome(code, why.get(report.state), begun=True)


def _outcome(asked: Request) -> SlideOutcome | None:
    """Return what came of the slide; None if it was interrupted before it began."""
    from wsi_unet.models.inference.devices import keep_freed_memory
    from wsi_unet.segmentation.report import RunProgress

    keep_freed_memory()
    job = _job(asked)
    with progress_display(PurePath(job.slide).name, quiet=asked.quiet) as display:

        def on_progress(progress: CohortProgress) -> None:
            asked.interruption.check()
            display(progress.active[0] if progress.active else RunProgress("opening"))

        display(RunProgress("opening"))
        outcomes = list(wsi_unet.segment_cohort([job], asked.cluster, on_progress=on_progress))
    return outcomes[0] if outcomes else None


def _job(asked: Request) -> SlideJob:
    (listed,) = asked.cohort.slides
    return listed.job


def _interrupted(asked: Request) -> CommandOutcome:
    job = _job(asked)
    document = {"slide": job.slide, "output": job.output, "state": "interrupted"}
    _print(asked, EXIT_FAILED, document)
    return CommandOutcome(EXIT_FAILED, INTERRUPTED)


def _failed(asked: Request, error: Exception) -> CommandOutcome:
    job, code = _job(asked), exit_code(error)
    show_error(error, what=job.slide, verbose=asked.verbose)
    document = {
        "slide": job.slide,
        "output": job.output,
        "state": "failed",
        "error": describe(error),
    }
    _print(asked, code, document)
    return CommandOutcome(code)


def _print(asked: Request, code: int, document: dict[str, Any]) -> None:
    if asked.as_json:
        print_json({"exit_code": code, "slides": [document]})

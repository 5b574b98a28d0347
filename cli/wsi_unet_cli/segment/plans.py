"""`wsi-unet segment --plan` with several slides: a line for each, then the totals."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from wsi_unet.wording import count
from wsi_unet_cli.common.failures import describe, show_error
from wsi_unet_cli.common.outcome import EXIT_FAILED, EXIT_OK, CommandOutcome
from wsi_unet_cli.common.output import duration, print_facts, say, size, write_json
from wsi_unet_cli.common.progress import open_display
from wsi_unet_cli.common.reports import exactness_in_words, show_plan, warning_lines
from wsi_unet_cli.common.text import speak, speak_document
from wsi_unet_cli.segment.progress import describe_planning
from wsi_unet_cli.segment.request import Request

if TYPE_CHECKING:
    from wsi_unet import Plan


@dataclass
class PlanTotals:
    """The plans of many slides, added up.

    Attributes:
        slides: number of slides that can be segmented.
        failed: number of slides that can't.
        blocks: number of their blocks.
        done: number of those that earlier runs have done.
        seconds: estimated time of what isn't done, without slides of unknown speed.
        expected_bytes: expected size on disk.
        output_bytes: size on disk, at most.
        warnings: number of warnings.
        resuming: number of slides that an earlier run has started.
        model_warnings: the warnings about models, each once.
    """

    slides: int = 0
    failed: int = 0
    blocks: int = 0
    done: int = 0
    seconds: float = 0.0
    expected_bytes: int = 0
    output_bytes: int = 0
    warnings: int = 0
    resuming: int = 0
    model_warnings: list[str] = field(default_factory=list)

    def add(self, plan: Plan) -> None:
        """Add a slide's plan."""
        self.slides += 1
        self.blocks += len(plan.labels.blocks())
        self.seconds += plan.seconds_left or 0.0
        self.done += len(plan.done)
        self.expected_bytes += plan.costs.expected_bytes
        self.output_bytes += plan.costs.output_bytes
        self.warnings += len(plan.warnings)
        self.resuming += plan.resumes
        about = (speak(f"{plan.labels.model.name}: {text}") for text in plan.model_warnings)
        self.model_warnings += [each for each in about if each not in self.model_warnings]


def plan_slides(request: Request) -> CommandOutcome:
    """Plan each slide of a cohort and show a line for it; nothing is written."""
    from wsi_unet.cohorts.planning import plan_cohort

    totals = PlanTotals()
    refused = [(slide.job, slide.error) for slide in request.cohort.slides if slide.error]
    with open_display("plan", describe_planning, quiet=request.quiet) as display:
        planned_jobs = plan_cohort(request.cohort.jobs, request.cluster, on_progress=display)
        separator = '{\n "slides": [\n'
        for job, planned in chain(refused, planned_jobs):
            with display.aside():
                _show_one(request, totals, job.slide, planned, separator)
            separator = ",\n"
    code = EXIT_FAILED if totals.failed else EXIT_OK
    if request.as_json:
        ending = json.dumps({"totals": vars(totals), "exit_code": code}, indent=1)
        write_json(f"\n ],{ending[1:]}")
    else:
        _show(totals, request.cohort.folder or "")
    return CommandOutcome(code)


def _show_one(
    request: Request, totals: PlanTotals, slide: str, planned: Plan | Exception, separator: str
) -> None:
    """Add a slide's plan to the totals and show it."""
    if isinstance(planned, Exception):
        totals.failed += 1
        show_error(planned, subject=slide, verbose=request.verbose)
    else:
        totals.add(planned)
    if request.as_json:
        write_json(separator + json.dumps(_document(slide, planned), allow_nan=False), nl=False)
    elif not isinstance(planned, Exception):
        for line in _lines(slide, planned):
            say(line)
        if request.verbose:
            show_plan(planned)


def _document(slide: str, planned: Plan | Exception) -> dict[str, Any]:
    if isinstance(planned, Exception):
        return {"slide": slide, "state": "failed", "error": describe(planned)}
    document: dict[str, Any] = speak_document(planned.to_json())
    return {**document, "slide": slide, "state": "planned"}


def _lines(slide: str, plan: Plan) -> list[str]:
    labels, costs = plan.labels, plan.costs
    words = [
        f"{count(len(labels.blocks()), 'block')}, {len(costs.tissue)} with tissue",
        f"about {size(costs.expected_bytes)}",
    ]
    if plan.seconds_left is not None:
        words.append(f"about {duration(plan.seconds_left)}")
    if labels.inexact_because:
        words.append(exactness_in_words(labels.exactness, labels.inexact_because))
    if plan.resumes:
        words.append(f"resumes, {len(plan.done)} done")
    line = f"{PurePath(slide).name}: {', '.join(words)}"
    return [line, *warning_lines(plan.slide_warnings)]


def _show(totals: PlanTotals, folder: str) -> None:
    slides = count(totals.slides + totals.failed, "slide")
    print_facts(
        f"{totals.slides} of {slides} planned, nothing written",
        [
            ("would write to", folder),
            (
                "blocks",
                f"{totals.blocks}, {totals.done} done" if totals.done else str(totals.blocks),
            ),
            ("disk", f"about {size(totals.expected_bytes)}, {size(totals.output_bytes)} at most"),
            ("time", f"about {duration(totals.seconds)}"),
            ("resumes", f"{totals.resuming} of them" if totals.resuming else ""),
            *(("warning", warning) for warning in totals.model_warnings),
        ],
    )

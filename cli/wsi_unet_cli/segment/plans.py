"""`wsi-unet segment --plan` with several slides: a line for each, then what it comes to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from wsi_unet_cli.common.failures import describe, printable, show_error
from wsi_unet_cli.common.outcome import EXIT_FAILED, EXIT_OK, CommandOutcome
from wsi_unet_cli.common.output import duration, print_facts, size
from wsi_unet_cli.common.reports import exactness_in_words, show_plan
from wsi_unet_cli.segment.request import Request

if TYPE_CHECKING:
    from wsi_unet import Plan


@dataclass
class PlanTotals:
    """What the plans come to.

    Attributes:
        slides: that can be segmented.
        failed: that can't.
        blocks: of them.
        seconds: estimated; slides of unknown speed left out.
        expected_bytes: on disk.
        output_bytes: on disk, at most.
        warnings: of all of them.
        resuming: slides that an earlier run has begun.
    """

    slides: int = 0
    failed: int = 0
    blocks: int = 0
    seconds: float = 0.0
    expected_bytes: int = 0
    output_bytes: int = 0
    warnings: int = 0
    resuming: int = 0

    def add(self, plan: Plan) -> None:
        """Add a slide's plan."""
        self.slides += 1
        self.blocks += len(plan.labels.blocks())
        self.seconds += plan.costs.seconds or 0.0
        self.expected_bytes += plan.costs.expected_bytes
        self.output_bytes += plan.costs.output_bytes
        self.warnings += len(plan.warnings)
        self.resuming += plan.resumes


def plan_slides(asked: Request) -> CommandOutcome:
    """Plan each slide of a cohort and show a line for it; nothing is written."""
    from wsi_unet.cohorts.planning import plan_cohort

    totals = PlanTotals()
    jobs = (listed.job for listed in asked.cohort.slides)
    between = '{\n "slides": [\n'
    for job, found in plan_cohort(jobs, asked.cluster):
        if isinstance(found, Exception):
            totals.failed += 1
            show_error(found, what=job.slide, verbose=asked.verbose)
        else:
            totals.add(found)
        if asked.as_json:
            click.echo(between + json.dumps(_document(job.slide, found), allow_nan=False), nl=False)
            between = ",\n"
        elif not isinstance(found, Exception):
            click.echo(_line(job.slide, found))
            if asked.verbose:
                show_plan(found)
    code = EXIT_FAILED if totals.failed else EXIT_OK
    if asked.as_json:
        ending = json.dumps({"totals": vars(totals), "exit_code": code}, indent=1)
        click.echo(f"\n ],{ending[1:]}")
    else:
        _show(totals, asked.cohort.folder or "")
    return CommandOutcome(code)


def _document(slide: str, found: Plan | Exception) -> dict[str, Any]:
    if isinstance(found, Exception):
        return {"slide": slide, "state": "failed", "error": describe(found)}
    return {**found.to_json(), "slide": slide, "state": "planned"}


def _line(slide: str, plan: Plan) -> str:
    labels, costs = plan.labels, plan.costs
    parts = [
        f"{len(labels.blocks())} blocks, {len(costs.tissue)} with tissue",
        f"about {size(costs.expected_bytes)}",
    ]
    if costs.seconds is not None:
        parts.append(f"about {duration(costs.seconds)}")
    if labels.inexact_because:
        parts.append(exactness_in_words(labels.exactness, labels.inexact_because))
    if plan.resumes:
        parts.append("goes on")
    beware = "".join(f"\n  beware  {printable(warning)}" for warning in plan.warnings)
    return f"{printable(PurePath(slide).name)}: {', '.join(parts)}{beware}"


def _show(totals: PlanTotals, folder: str) -> None:
    print_facts(
        f"{totals.slides} of {totals.slides + totals.failed} slides planned, nothing written",
        [
            ("would write to", folder),
            ("blocks", str(totals.blocks)),
            ("disk", f"about {size(totals.expected_bytes)}, {size(totals.output_bytes)} at most"),
            ("time", f"about {duration(totals.seconds)}"),
            ("goes on", f"{totals.resuming} of them" if totals.resuming else ""),
        ],
    )

"""A stand-in for the runs behind `wsi-unet segment`, with outcomes that a test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import cast

from click.testing import CliRunner, Result

from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.segmentation.report import (
    BlockCounts,
    ClassArea,
    CohortProgress,
    Failure,
    Report,
    RunProgress,
    RunState,
    Waits,
)
from wsi_unet.segmentation.runs.jobs import SlideJob, SlideOutcome
from wsi_unet_cli.main import cli


def report(output: str, state: RunState = "finished", resumed: int = 0) -> Report:
    failed = 1 if state == "incomplete" else 0
    return Report(
        output=output,
        label="nuclei-he",
        slide="x.svs",
        state=state,
        blocks=BlockCounts(total=4, done=4 - failed, resumed=resumed, failed=failed, empty=1),
        classes=(
            ClassArea(0, "tissue", "#ffffff", 750, 0.75, 0.75, "nuclei-he"),
            ClassArea(1, "nucleus", "#2a6fdb", 250, 0.25, 0.25, "nuclei-he"),
        ),
        seconds=2.0,
        startup_seconds=1.0,
        mpx_per_s=3.5,
        blocks_per_s=1.5,
        waits=Waits(0.1, 0.2, 1.5, 0.1),
        device_busy=0.9,
        failures=(Failure((1, 0), "SlideError: bad tile"),) if failed else (),
        image=None,
        warnings=(),
        parameters={
            "exactness": "exact",
            "inexact_because": "",
            "precision": "float32",
            "agreement": None,
        },
    )


def cohort_progress(active: tuple[RunProgress, ...] = (), blocks_done: int = 1) -> CohortProgress:
    return CohortProgress(
        slides_total=2,
        slides_done=1,
        slides_failed=0,
        blocks_done=blocks_done,
        blocks_in_flight=3,
        pixels_done=100,
        seconds=1.0,
        mpx_per_s=2.5,
        blocks_per_s=1.25,
        device_busy=0.93,
        active=active,
    )


def segmenting(slide: str) -> RunProgress:
    return RunProgress(
        "segmenting",
        slide=slide,
        blocks_done=1,
        blocks_total=4,
        pixels_done=100,
        seconds=1.0,
        mpx_per_s=2.5,
        seconds_left=30.0,
        device_busy=0.93,
    )


class Calls:
    """A stand-in for `segment_cohort` that records what it is asked for.

    Attributes:
        jobs: the slides that were taken, in order.
        clusters: the cluster options of each call.
        outcomes: by slide: a state, or an error; KeyboardInterrupt ends it all.
    """

    def __init__(self) -> None:
        self.jobs: list[SlideJob] = []
        self.clusters: list[ClusterOptions | None] = []
        self.outcomes: dict[str, BaseException | RunState] = {}

    def __call__(
        self,
        jobs: Iterable[SlideJob],
        cluster: ClusterOptions | None = None,
        *,
        on_progress: Callable[[CohortProgress], None],
    ) -> Iterator[SlideOutcome]:
        self.clusters.append(cluster)
        for job in jobs:
            self.jobs.append(job)
            name = PurePath(job.slide).name
            on_progress(cohort_progress((RunProgress("opening", slide=name),)))
            on_progress(cohort_progress((segmenting(name),)))
            outcome = self.outcomes.get(job.slide, "finished")
            if isinstance(outcome, KeyboardInterrupt):
                return
            if isinstance(outcome, Exception):
                try:
                    raise outcome  # for its traceback
                except type(outcome) as error:
                    yield SlideOutcome(job, None, error)
            else:
                yield SlideOutcome(job, report(str(job.output), cast(RunState, outcome)))
                if outcome == "interrupted":
                    return

    @property
    def slides(self) -> list[str]:
        return [job.slide for job in self.jobs]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["segment", *arguments])


def error_lines(done: Result) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]

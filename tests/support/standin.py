"""A stand-in for the run behind `wsi-unet segment`: it returns or raises what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from click.testing import CliRunner, Result

from wsi_unet.segment.report import (
    BlockCounts,
    ClassArea,
    CohortProgress,
    Failure,
    Report,
    RunProgress,
    State,
    Waits,
)
from wsi_unet_cli.main import cli

Run = Callable[..., Report]


def report(output: str, state: State = "finished", resumed: int = 0) -> Report:
    failed = 1 if state == "incomplete" else 0
    return Report(
        output=output,
        label="nuclei-he",
        slide="x.svs",
        state=state,
        blocks=BlockCounts(total=4, done=4 - failed, resumed=resumed, failed=failed, empty=1),
        classes=(
            ClassArea(0, "tissue", "#ffffff", 750, 0.75, 0.75),
            ClassArea(1, "nucleus", "#2a6fdb", 250, 0.25, 0.25),
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
        parameters={"exactness": "exact", "precision": "float32", "agreement": None},
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


class Calls:
    """A stand-in for `segment` that records how it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.outcomes: dict[str, BaseException | State] = {}

    def __call__(self, slide: str, output: str, model: str, **options: Any) -> Report:
        self.calls.append(((slide, output, model), options))
        on_progress = options.pop("on_progress")
        on_progress(RunProgress("opening"))
        on_progress(RunProgress("segmenting", 1, 4, 0, 100, 1.0, 2.5, 30.0, 0.93))
        outcome = self.outcomes.get(slide, "finished")
        if isinstance(outcome, BaseException):
            raise outcome
        return report(output, outcome)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["segment", *arguments])


def error_lines(done: Result) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]

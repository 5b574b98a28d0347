"""Several slides, one after the other: where each goes, what came of it, how it all ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import click

from wsi_unet_cli.failures import describe, exit_code

EXIT_OK, EXIT_FAILED = 0, 1

OUTPUT_SUFFIX = ".ome.zarr"


@dataclass(frozen=True)
class Job:
    """One slide and where its result goes."""

    slide: str
    output: str


@dataclass(frozen=True)
class Result:
    """What came of one job.

    Attributes:
        job: the job.
        exit_code: what the process would exit with if this were its only job.
        document: what `--json` says about it.
        error: what went wrong, if the job raised.
    """

    job: Job
    exit_code: int
    document: dict[str, Any]
    error: Exception | None = None


def stem(slide: str) -> str:
    """Return a slide's name without its extensions.

    >>> [stem(s) for s in ("a/x.svs", "x.ome.tif", "x.ome.zarr/", "case.1.ndpi", ".svs")]
    ['x', 'x', 'x', 'case.1', '.svs']
    """
    name = PurePath(slide).name
    return PurePath(name).stem.removesuffix(".ome") or name


def jobs_for(slides: Sequence[str], output: str | None) -> list[Job]:
    """Return where each slide's result goes.

    Args:
        slides: paths of the slides.
        output: what `--output` says: the result itself for one slide; a folder for several, or
            when it ends in a slash.

    Raises:
        click.UsageError: if two slides would be written to one place.
    """
    if output is not None and len(slides) == 1 and not output.endswith("/"):
        return [Job(slides[0], output)]
    folder = "" if output is None else output.rstrip("/") + "/"  # plain text: may be a URL
    jobs: dict[str, Job] = {}
    for slide in slides:
        job = Job(slide, f"{folder}{stem(slide)}{OUTPUT_SUFFIX}")
        other = jobs.setdefault(job.output, job)
        if other is not job:
            raise click.UsageError(
                f"{other.slide} and {slide} would both be written to {job.output}; "
                "segment them one by one with --output."
            )
    return list(jobs.values())


def attempt(jobs: Sequence[Job], work: Callable[[Job], Result]) -> Iterator[Result]:
    """Yield what comes of each job; one that raises is a result like any other.

    An interruption isn't: it ends the sequence by being raised.
    """
    for job in jobs:
        try:
            yield work(job)
        except Exception as error:
            yield Result(
                job,
                exit_code(error),
                {
                    "slide": job.slide,
                    "output": job.output,
                    "state": "failed",
                    "error": describe(error),
                },
                error,
            )


def overall_exit_code(results: Sequence[Result]) -> int:
    """Return 0 if all went well, 2 if every slide was unusable, otherwise 1."""
    codes = {result.exit_code for result in results}
    return codes.pop() if len(codes) == 1 else EXIT_FAILED

"""`wsi-unet segment`: slides in, label pyramids out."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Unpack

import click

import wsi_unet
from wsi_unet_cli.failures import VERBOSE, show_error
from wsi_unet_cli.interrupt import Interruption, interruptible
from wsi_unet_cli.jobs import (
    EXIT_FAILED,
    EXIT_OK,
    Job,
    Result,
    attempt,
    jobs_for,
    overall_exit_code,
)
from wsi_unet_cli.options import (
    IMAGES,
    PRECISIONS,
    json_option,
    parse_block,
    parse_device,
    parse_outputs,
    parse_region,
    parse_tile,
    reader_option,
    verbose_option,
)
from wsi_unet_cli.output import print_json
from wsi_unet_cli.progress import progress_display
from wsi_unet_cli.reports import show_plan, show_report

if TYPE_CHECKING:
    from wsi_unet.segment.options import OptionArguments
    from wsi_unet.segment.report import RunProgress

ARGUMENTS = "wsi_unet.arguments"
"""Key in `click.Context.meta`: the command line as typed, after the program's name."""

INTERRUPTED = "interrupted"

EPILOG = """\
\b
Examples:
  wsi-unet segment slide.svs
  wsi-unet segment slide.svs --plan
  wsi-unet segment *.svs --output results/ --workers 4
  wsi-unet segment slide.svs --model my-model/ --region 4096,0,8192,8192
  wsi-unet segment slide.svs --tissue tumour.geojson --outputs labels,probabilities

A run that was interrupted continues where it was when the same command is given again.
"""


@click.command(epilog=EPILOG, short_help="Segment slides into OME-Zarr label pyramids.")
@click.argument("slides", metavar="SLIDE...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="Where to write. A folder to write into when there are several slides or it ends in a "
    "slash.  [default: ./<slide's name>.ome.zarr]",
)
@click.option(
    "-m",
    "--model",
    default="nuclei-he",
    show_default=True,
    metavar="MODEL",
    help="A bundled model's name, or the path of a model.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(min=0, min_open=True),
    metavar="F",
    help="The slide's pixel size in µm, in place of what the file says.",
)
@click.option(
    "--region",
    callback=parse_region,
    metavar="X,Y,W,H",
    help="Only this part of the slide, in full-resolution pixels; grows to whole blocks.",
)
@click.option(
    "--tissue",
    default="auto",
    show_default=True,
    metavar="auto|none|MASK",
    help="Where to look: found automatically, everywhere, or in a mask (an image stretched over "
    "the slide, or GeoJSON polygons in full-resolution pixels).",
)
@click.option(
    "--outputs",
    default="labels",
    show_default=True,
    callback=parse_outputs,
    metavar="labels[,probabilities]",
    help="What to write.",
)
@click.option(
    "--image",
    type=click.Choice(IMAGES),
    help="What to store of the slide beside the labels.  [default: overview]",
)
@click.option(
    "--block",
    type=int,
    callback=parse_block,
    metavar="N",
    help="Side of a block, the unit of work, in pixels: 512, 1024, 2048 …  [default: 4096]",
)
@click.option(
    "--tile",
    default="auto",
    show_default=True,
    callback=parse_tile,
    metavar="N|auto",
    help="Side of a tile, what the network sees at once, in pixels.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Arithmetic of the network.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=parse_device,
    metavar="auto|cpu|cuda[:i]",
    help="What the network runs on.",
)
@reader_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of local worker processes.  [default: work in this process]",
)
@click.option("--scheduler", metavar="ADDRESS", help="Use the Dask cluster at this address.")
@click.option("--overwrite", is_flag=True, help="Replace a result made with other parameters.")
@click.option("--plan", "only_plan", is_flag=True, help="Say what would be done and its cost.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@verbose_option
@click.pass_context
def segment(
    ctx: click.Context,
    slides: tuple[str, ...],
    output: str | None,
    model: str,
    overwrite: bool,
    only_plan: bool,
    as_json: bool,
    quiet: bool,
    **options: Unpack[OptionArguments],
) -> None:
    """Segment each SLIDE and write a pyramidal OME-Zarr with its labels.

    Slides are worked on one after the other; one that fails doesn't stop the rest.
    """
    if options["workers"] is not None and options["scheduler"] is not None:
        raise click.UsageError("Give either --workers or --scheduler, not both.")
    jobs = jobs_for(slides, output)
    with interruptible() as interruption:
        task = _Task(model, options, overwrite, quiet, as_json, ctx.meta[VERBOSE], interruption)
        results = _work(jobs, task.plan if only_plan else task.segment, verbose=task.verbose)
    code = overall_exit_code(results)
    if as_json:
        print_json({"exit_code": code, "slides": [result.document for result in results]})
    _say_how_to_go_on(results, ctx.meta[ARGUMENTS])
    ctx.exit(code)


@dataclass(frozen=True)
class _Task:
    """What is to be done with each slide."""

    model: str
    options: OptionArguments
    overwrite: bool
    quiet: bool
    as_json: bool
    verbose: bool
    interruption: Interruption

    def plan(self, job: Job) -> Result:
        """Plan one slide and show the plan."""
        found = wsi_unet.plan(
            job.slide, job.output, self.model, overwrite=self.overwrite, **self.options
        )
        if not self.as_json:
            show_plan(found)
        document = {**found.to_json(), "slide": job.slide, "state": "planned"}
        return Result(job, EXIT_OK, document)

    def segment(self, job: Job) -> Result:
        """Segment one slide, showing progress, and show the report."""
        from wsi_unet.models.devices import keep_freed_memory

        keep_freed_memory()
        with progress_display(PurePath(job.slide).name, quiet=self.quiet) as display:

            def on_progress(progress: RunProgress) -> None:
                self.interruption.check()
                display(progress)

            report = wsi_unet.segment(
                job.slide,
                job.output,
                self.model,
                overwrite=self.overwrite,
                on_progress=on_progress,
                **self.options,
            )
        if not self.as_json:
            show_report(report, verbose=self.verbose)
        code = EXIT_OK if report.state == "finished" else EXIT_FAILED
        return Result(job, code, {**report.to_json(), "slide": job.slide})


def _work(jobs: Sequence[Job], work: Callable[[Job], Result], *, verbose: bool) -> list[Result]:
    """Do the jobs until one is interrupted, showing each error as it happens."""
    results: list[Result] = []
    try:
        for result in attempt(jobs, work):
            results.append(result)
            if result.error is not None:
                show_error(result.error, what=result.job.slide, verbose=verbose)
            if result.document["state"] == INTERRUPTED:
                break
    except KeyboardInterrupt:
        for job in jobs[len(results) : len(results) + 1]:
            document = {"slide": job.slide, "output": job.output, "state": INTERRUPTED}
            results.append(Result(job, EXIT_FAILED, document))
    return results


def _say_how_to_go_on(results: Sequence[Result], arguments: Sequence[str]) -> None:
    """Print the very command that continues what was interrupted or failed in part."""
    states = [result.document["state"] for result in results]
    if INTERRUPTED in states:
        click.echo("interrupted; what is done is kept. To go on:", err=True)
    elif "incomplete" in states:
        click.echo("some blocks failed; the rest is kept. To try just those again:", err=True)
    else:
        return
    # What this run has begun must not be thrown away by the next one.
    begun = any("blocks" in result.document for result in results)
    again = [argument for argument in arguments if not (begun and argument == "--overwrite")]
    click.echo(f"  {shlex.join(['wsi-unet', *again])}", err=True)

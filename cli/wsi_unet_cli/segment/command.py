"""`wsi-unet segment`: slides in, label pyramids out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

import wsi_unet
from wsi_unet.segmentation.planning.options import IMAGES, PRECISIONS
from wsi_unet_cli.common.cluster_options import cluster_options, logging_to
from wsi_unet_cli.common.failures import VERBOSE, printable
from wsi_unet_cli.common.interrupt import interruptible
from wsi_unet_cli.common.options import (
    ENSEMBLES,
    TTAS,
    json_option,
    parse_block,
    parse_device,
    parse_outputs,
    parse_region,
    parse_tile,
    reader_option,
    trust_option,
    verbose_option,
)
from wsi_unet_cli.common.outcome import (
    ARGUMENTS,
    EXIT_FAILED,
    INTERRUPTED,
    CommandOutcome,
    show_resume_command,
)
from wsi_unet_cli.segment.many_slides import segment_slides
from wsi_unet_cli.segment.one_slide import plan_slide, segment_slide
from wsi_unet_cli.segment.plans import plan_slides
from wsi_unet_cli.segment.request import Request

if TYPE_CHECKING:
    from wsi_unet.dask_cluster.options import ClusterOptions
    from wsi_unet.segmentation.planning.options import OptionArguments

EPILOG = """\
\b
Examples:
  wsi-unet segment slide.svs
  wsi-unet segment slide.svs --plan
  wsi-unet segment slides/ --output results/ --workers 4
  wsi-unet segment cohort.csv --output s3://bucket/results/ --scheduler tcp://head:8786
  wsi-unet segment slide.svs --model my-model/ --region 4096,0,8192,8192
  wsi-unet segment slide.svs -m fold-1/ -m fold-2/ --ensemble mean --tta flips
  wsi-unet segment slide.svs --tissue tumour.geojson --outputs labels,probabilities

A run that was interrupted continues where it was when the same command is given again.
"""


@click.command(epilog=EPILOG, short_help="Segment slides into OME-Zarr label pyramids.")
@click.argument("inputs", metavar="SLIDE...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="Where to write; may be an s3:// URL. A folder to write into unless there is just one "
    "slide and no slash at the end.  [default: ./<slide's name>.ome.zarr]",
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    default=("nuclei-he",),
    show_default=True,
    metavar="MODEL",
    help="A bundled model's name, or the path of a model. Several, with --ensemble.",
)
@click.option(
    "--ensemble",
    type=click.Choice(ENSEMBLES),
    help="Average the probabilities of several models: -m A -m B --ensemble mean.",
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
    "the slide, or GeoJSON or ASAP XML outlines in full-resolution pixels).",
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
@click.option(
    "--tta",
    type=click.Choice(TTAS),
    default="none",
    show_default=True,
    help="Average the probabilities over the 4 flips of each window, or over its 8 flips and "
    "rotations; takes 4 or 8 times as long.",
)
@trust_option
@reader_option
@cluster_options
@click.option("--overwrite", is_flag=True, help="Replace a result made with other parameters.")
@click.option("--plan", "only_plan", is_flag=True, help="Say what would be done and its cost.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@verbose_option
@click.pass_context
def segment(
    ctx: click.Context,
    inputs: tuple[str, ...],
    output: str | None,
    models: tuple[str, ...],
    ensemble: str | None,
    overwrite: bool,
    only_plan: bool,
    as_json: bool,
    quiet: bool,
    cluster: ClusterOptions,
    log_file: str | None,
    **options: Unpack[OptionArguments],
) -> None:
    """Segment each SLIDE and write a pyramidal OME-Zarr with its labels.

    A SLIDE is a file, a folder that is searched for slides with all folders below, a pattern in
    quotes ('slides/**/*.svs'), an s3:// URL, or a .csv manifest with a column "slide" and, if
    wanted, "output", "model", "mpp" and "tissue".

    With several slides the output folder gets cohort.csv and cohort.json too, with a row for each.
    Their blocks are worked on together; a slide that fails doesn't stop the others. The same
    command again does only what is left.
    """
    verbose = ctx.meta[VERBOSE]
    if len(models) > 1 and ensemble is None:
        raise click.UsageError("several models: say --ensemble mean to average what they predict.")
    with interruptible() as interruption, logging_to(log_file, verbose=verbose):
        try:
            from wsi_unet.cohorts.cohort import read_cohort

            asked = Request(
                read_cohort(
                    inputs,
                    output,
                    models[0],
                    wsi_unet.Options(**options),
                    other_models=models[1:],
                    overwrite=overwrite,
                ),
                cluster,
                quiet=quiet,
                as_json=as_json,
                verbose=verbose,
                interruption=interruption,
            )
            for line in asked.cohort.skipped:
                click.echo(f"warning: {printable(line)}", err=True)
            ending = _carry_out(asked, only_plan=only_plan)
        except KeyboardInterrupt:  # before anything was begun: looking for slides, or importing
            ending = CommandOutcome(EXIT_FAILED, INTERRUPTED)
    show_resume_command(ending, ctx.meta[ARGUMENTS])
    ctx.exit(ending.exit_code)


def _carry_out(asked: Request, *, only_plan: bool) -> CommandOutcome:
    if asked.cohort.folder is None:
        return plan_slide(asked) if only_plan else segment_slide(asked)
    return plan_slides(asked) if only_plan else segment_slides(asked)

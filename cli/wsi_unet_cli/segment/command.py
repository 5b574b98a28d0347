"""`wsi-unet segment`: slides in, label pyramids out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from wsi_unet.segmentation.planning.options import IMAGES, PRECISIONS
from wsi_unet_cli.common.cluster_options import cluster_options, logging_to
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.interrupt import interruptible
from wsi_unet_cli.common.object_options import object_options
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
    series_option,
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
from wsi_unet_cli.common.output import say
from wsi_unet_cli.common.quick_imports import quick_imports
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
  wsi-unet segment slide.svs --outputs labels,objects --split distance:0.75

A run that is interrupted (Ctrl-C, SIGTERM, or SIGHUP except under nohup) exits with 1, and
continues where it stopped when the same command is given again.
"""


@click.command(epilog=EPILOG, short_help="Segment slides into OME-Zarr label pyramids.")
@click.argument("inputs", metavar="SLIDE...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="Where to write; may be an s3:// URL. With several slides, or a slash at the end, it is "
    "the folder that the results go into.  [default: ./<slide's name>.ome.zarr]",
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    default=("nuclei-he",),
    show_default=True,
    metavar="MODEL",
    help="Name of a bundled model, or path of a model; may be given several times, with "
    "--ensemble.",
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
    help="The slide's pixel size in µm, instead of what the file says.",
)
@click.option(
    "--allow-scale",
    is_flag=True,
    help="Segment although the slide's pixels are more than 4 times as large as the model's.",
)
@click.option(
    "--region",
    callback=parse_region,
    metavar="X,Y,W,H",
    help="Segment only this part of the slide, in full-resolution pixels; given again with another "
    "part, that is added.",
)
@click.option(
    "--tissue",
    default="auto",
    show_default=True,
    metavar="auto|none|MASK",
    help="Where to segment: auto: where tissue is found; none: everywhere; or in a mask (an image "
    "stretched over the slide, or GeoJSON or ASAP XML outlines in full-resolution pixels).",
)
@click.option(
    "--outputs",
    default="labels",
    show_default=True,
    callback=parse_outputs,
    metavar="labels[,objects][,probabilities]",
    help="What to write; objects: a table of the labels' objects, found when they are finished.",
)
@object_options
@click.option(
    "--image",
    type=click.Choice(IMAGES),
    help="Which image of the slide to store beside the labels.  [default: overview]",
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
    help="Side of a tile, the area that the network labels at once, in pixels.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Number type that the network computes in.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=parse_device,
    metavar="auto|cpu|cuda[:i]",
    help="Device that the network runs on.",
)
@click.option(
    "--tta",
    type=click.Choice(TTAS),
    default="none",
    show_default=True,
    help="Test-time augmentation: average the probabilities over 4 flips of each window (flips), "
    "or over its 8 flips and rotations (d4); takes 4 or 8 times as long.",
)
@trust_option
@reader_option
@series_option
@cluster_options
@click.option(
    "--allow-outside",
    "outside",
    is_flag=True,
    help="Allow places outside of OUT in the column 'output' of a manifest.",
)
@click.option("--overwrite", is_flag=True, help="Replace a result made with other parameters.")
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Show what would be done and what it would cost; write nothing.",
)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@verbose_option
@click.pass_context
def segment(
    ctx: click.Context,
    inputs: tuple[str, ...],
    output: str | None,
    models: tuple[str, ...],
    ensemble: str | None,
    outside: bool,
    overwrite: bool,
    only_plan: bool,
    as_json: bool,
    quiet: bool,
    cluster: ClusterOptions,
    log_file: str | None,
    **options: Unpack[OptionArguments],
) -> None:
    """Segment each SLIDE and write a pyramidal OME-Zarr with its labels.

    A SLIDE is a file, an s3:// URL, a folder (which is searched for slides, with all folders
    below), a pattern in quotes ('slides/**/*.svs'), or a .csv manifest with a column "slide" and,
    optionally, "output", "model", "mpp", "tissue" and "series".

    With several slides, a row for each is also written to cohort.csv and cohort.json in the output
    folder. A slide that fails doesn't stop the others. The same command, given again, does only
    what is left.
    """
    verbose = ctx.meta[VERBOSE]
    if len(models) > 1 and ensemble is None:
        raise click.UsageError("Several models: add --ensemble mean to average their predictions.")
    with interruptible() as check_interrupted, logging_to(log_file, verbose=verbose):
        try:
            with quick_imports():
                import wsi_unet.segmentation.runs.cohort
                from wsi_unet.cohorts.cohort import read_cohort

            request = Request(
                read_cohort(
                    inputs,
                    output,
                    models[0],
                    wsi_unet.Options(**options),
                    other_models=models[1:],
                    overwrite=overwrite,
                    outside=outside,
                ),
                cluster,
                quiet=quiet,
                as_json=as_json,
                verbose=verbose,
                check_interrupted=check_interrupted,
            )
            for line in request.cohort.skipped:
                say(f"warning: {line}", err=True)
            outcome = _carry_out(request, only_plan=only_plan)
        except KeyboardInterrupt:  # while looking for slides, or importing
            outcome = CommandOutcome(EXIT_FAILED, INTERRUPTED)
    show_resume_command(outcome, ctx.meta[ARGUMENTS])
    ctx.exit(outcome.exit_code)


def _carry_out(request: Request, *, only_plan: bool) -> CommandOutcome:
    if request.cohort.folder is None:
        return plan_slide(request) if only_plan else segment_slide(request)
    return plan_slides(request) if only_plan else segment_slides(request)

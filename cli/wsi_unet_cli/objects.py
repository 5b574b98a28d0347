"""`wsi-unet objects`: find, measure and count the objects of a finished result."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

import wsi_unet
from wsi_unet_cli.common.cluster_options import cluster_options, logging_to
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.interrupt import interruptible
from wsi_unet_cli.common.object_options import object_options
from wsi_unet_cli.common.options import json_option, verbose_option
from wsi_unet_cli.common.outcome import (
    ARGUMENTS,
    EXIT_FAILED,
    EXIT_OK,
    INCOMPLETE,
    INTERRUPTED,
    CommandOutcome,
    show_resume_command,
)
from wsi_unet_cli.common.output import duration, print_json, say
from wsi_unet_cli.common.progress import open_display
from wsi_unet_cli.common.reports import show_objects
from wsi_unet_cli.segment.progress import describe_run

if TYPE_CHECKING:
    from wsi_unet.dask_cluster.options import ClusterOptions
    from wsi_unet.segmentation.report import RunProgress

EPILOG = """\
\b
Examples:
  wsi-unet objects slide.ome.zarr
  wsi-unet objects slide.ome.zarr --split distance:0.75 --min-area 10
  wsi-unet objects slide.ome.zarr --split nuclei=distance:0.75 --max-area nuclei=400
  wsi-unet objects slide.ome.zarr --split nuclei=interior:border:1.5
  wsi-unet objects slide.ome.zarr --measure shape,intensity,stain
  wsi-unet objects slide.ome.zarr --object-labels
  wsi-unet objects s3://bucket/slide.ome.zarr --json

docs/reference/objects.md defines every column.
"""


@click.command(epilog=EPILOG, short_help="Find, measure and count a result's objects.")
@click.argument("result", metavar="OUT")
@click.option("--label", metavar="NAME", help="Label group.  [default: all that the result holds]")
@object_options
@click.option(
    "--object-labels",
    is_flag=True,
    help="Paint a label image of the objects too, OUT/labels/NAME.objects, in which napari and "
    "neuroglancer show each object by itself.",
)
@cluster_options
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@verbose_option
@click.pass_context
def objects(
    ctx: click.Context,
    /,
    result: str,
    as_json: bool,
    quiet: bool,
    cluster: ClusterOptions,
    log_file: str | None,
    **options: Any,
) -> None:
    """Find the objects in the finished labels of the result OUT, and write a table of them.

    An object is an 8-connected component of a class, or a part of one. The table, GeoParquet files
    under OUT/objects/, has a row per object, with identity, outline and measurements; it depends on
    the labels and the rule alone. The same command completes an interrupted table; with another
    rule it replaces the table. Where the slide's pixel size isn't known, lengths are in pixels of
    the slide instead of µm.
    """
    verbose = ctx.meta[VERBOSE]
    with (
        interruptible() as check_interrupted,
        logging_to(log_file, verbose=verbose),
        open_display(PurePath(result).name, describe_run, quiet=quiet) as display,
    ):

        def on_progress(progress: RunProgress) -> None:
            check_interrupted()
            display(progress)

        report = wsi_unet.find_objects(result, cluster=cluster, on_progress=on_progress, **options)
    if as_json:
        print_json(report.to_json())
    else:
        show_objects(report.labels)
        for image in report.images:
            say(f"painted labels/{image}")
        say(f"took {duration(report.seconds)}")
    reasons = {"interrupted": INTERRUPTED, "incomplete": INCOMPLETE}
    code = EXIT_OK if report.state == "finished" else EXIT_FAILED
    outcome = CommandOutcome(code, reasons.get(report.state), started=True)
    show_resume_command(outcome, ctx.meta[ARGUMENTS])
    ctx.exit(code)

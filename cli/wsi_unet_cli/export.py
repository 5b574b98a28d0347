"""`wsi-unet export`: export results for other programs."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

import wsi_unet
from wsi_unet.exports.formats import FORMATS
from wsi_unet.exports.options import CONTENTS, MOST_OBJECTS, OBJECT_KINDS
from wsi_unet_cli.common.cluster_options import logging_to
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.interrupt import interruptible
from wsi_unet_cli.common.options import json_option, verbose_option
from wsi_unet_cli.common.outcome import EXIT_FAILED, EXIT_OK
from wsi_unet_cli.common.output import print_json, say
from wsi_unet_cli.common.progress import Snapshot, open_display
from wsi_unet_cli.common.text import speak

if TYPE_CHECKING:
    from wsi_unet import ExportProgress

EPILOG = """\
\b
Examples:
  wsi-unet export slide.ome.zarr --to csv
  wsi-unet export slide.ome.zarr --to parquet --output objects.parquet
  wsi-unet export slide.ome.zarr --to png --class nuclei --level 2
  wsi-unet export slide.ome.zarr --to ome-tiff --what overlay
  wsi-unet export slide.ome.zarr --to qupath
  wsi-unet export results/ --to csv --output tables/

docs/reference/export.md describes every format.
"""


def _list_formats() -> str:
    return "; ".join(f"{name}: {facts.summary}" for name, facts in FORMATS.items())


@click.command(epilog=EPILOG, short_help="Export results to QuPath, viewers, archives, tables.")
@click.argument("result", metavar="OUT")
@click.option(
    "--to",
    "format",
    type=click.Choice([*FORMATS]),
    required=True,
    help=f"Format: {_list_formats()}.",
)
@click.option(
    "-o",
    "--output",
    "path",
    metavar="PATH",
    help="File or folder to write; for a folder of results, a folder.  [default: ./<the result's "
    "name> with the format's suffix]",
)
@click.option("--label", metavar="NAME", help="Label group.  [default: all that the result holds]")
@click.option(
    "--level",
    type=click.IntRange(min=0),
    metavar="N",
    help="Pyramid level, with png and dicom-seg; 0 is the finest.  [default: 0; with dicom-seg the "
    "one nearest to 2 µm]",
)
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="Class, with png and qupath.  [default: all; with png the only one]",
)
@click.option(
    "--what",
    type=click.Choice(CONTENTS),
    help="What to export, with ome-tiff.  [default: labels]",
)
@click.option(
    "--as",
    "objects_as",
    type=click.Choice(OBJECT_KINDS),
    help="What QuPath makes of all objects.  [default: detections of classes with an object rule, "
    "annotations of others]",
)
@click.option(
    "--max-objects",
    "most_objects",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Most objects per file for QuPath.  [default: {MOST_OBJECTS}]",
)
@click.option(
    "--patient-id",
    metavar="ID",
    help="DICOM: identifier of the patient, for slides that aren't DICOM.",
)
@click.option(
    "--study-uid", metavar="UID", help="DICOM: UID of the study, for slides that aren't DICOM."
)
@click.option(
    "--frame-of-reference-uid",
    metavar="UID",
    help="DICOM: UID of the slide's coordinates, for slides that aren't DICOM.",
)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@verbose_option
@click.pass_context
def export(
    ctx: click.Context,
    /,
    result: str,
    format: str,
    path: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Export the result OUT, or every result in the folder OUT, for other programs.

    An export is there whole or not at all. An earlier export in its place is replaced; anything
    else that is there is left alone.
    """
    with (
        interruptible() as check_interrupted,
        logging_to(None, verbose=ctx.meta[VERBOSE]),
        open_display(PurePath(result).name, _describe, quiet=quiet) as display,
    ):

        def on_progress(progress: ExportProgress) -> None:
            check_interrupted()
            display(progress)

        report = wsi_unet.export(
            result,
            format,
            path,
            options=wsi_unet.ExportOptions(**options),
            on_progress=on_progress,
        )
    if as_json:
        print_json({"files": [str(file) for file in report.files], "failures": report.failures})
    else:
        for file in report.files:
            say(f"exported  {file}")
        for name, error in report.failures.items():
            say(f"error: {name}: {speak(error)}", err=True)
    ctx.exit(EXIT_FAILED if report.failures else EXIT_OK)


def _describe(progress: ExportProgress) -> Snapshot:
    total = "" if progress.total is None else f" of {progress.total:,}"
    return Snapshot(
        figures=f"{progress.done:,}{total} {progress.unit}",
        phase="exporting",
        done=progress.done,
        total=progress.total,
        seconds=progress.seconds,
        state=progress.result,
    )

"""`wsi-unet import-annotations`: import objects that were corrected in QuPath."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import wsi_unet
from wsi_unet.wording import count
from wsi_unet_cli.common.cluster_options import logging_to
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.interrupt import interruptible
from wsi_unet_cli.common.options import json_option, verbose_option
from wsi_unet_cli.common.output import print_facts, print_json, say
from wsi_unet_cli.common.reports import edits_in_words, show_edited_classes

if TYPE_CHECKING:
    from wsi_unet import CorrectionsReport

EPILOG = """\
\b
Examples:
  wsi-unet import-annotations edited.geojson slide.ome.zarr
  wsi-unet import-annotations edited.geojson slide.ome.zarr --complete
  wsi-unet import-annotations edited.geojson slide.ome.zarr --complete-within reviewed.geojson
  wsi-unet import-annotations part-1.geojson.gz part-2.geojson.gz slide.ome.zarr --complete
  wsi-unet import-annotations edited.geojson slide.ome.zarr --ignore "Region*" --new-classes

docs/reference/objects.md says what becomes of each outline.
"""


def parse_point(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Parse X,Y: two whole numbers."""
    if value is None:
        return None
    try:
        x, y = map(int, value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} isn't X,Y, two whole numbers of pixels.") from None
    return x, y


@click.command(
    "import-annotations", epilog=EPILOG, short_help="Import objects that were corrected in QuPath."
)
@click.argument("files", metavar="EDITED...", nargs=-1, required=True)
@click.argument("result", metavar="OUT")
@click.option("--label", metavar="NAME", help="Label group, if OUT holds several.")
@click.option(
    "--complete",
    is_flag=True,
    help="The files hold every object of OUT: delete those that aren't there.  "
    "[default: keep them]",
)
@click.option(
    "--complete-within",
    metavar="ANNOTATIONS",
    help="The files hold every object in these regions (GeoJSON or ASAP XML): delete those that "
    "aren't there and have their centroid in one.",
)
@click.option(
    "--new-classes",
    is_flag=True,
    help="Keep classes that the model doesn't have.  [default: refuse them]",
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="CLASS",
    help="Outlines of this class aren't objects; may be given several times. An object that was "
    "given such a class is deleted.",
)
@click.option(
    "--origin",
    callback=parse_point,
    metavar="X,Y",
    help="Pixel of the slide from which the coordinates of EDITED count, where QuPath doesn't show "
    "all of a slide (MRXS, SCN, BIF).  [default: what EDITED or OUT says]",
)
@json_option
@verbose_option
@click.pass_context
def import_annotations(
    ctx: click.Context,
    files: tuple[str, ...],
    result: str,
    label: str | None,
    complete: bool,
    complete_within: str | None,
    new_classes: bool,
    ignore: tuple[str, ...],
    origin: tuple[int, int] | None,
    as_json: bool,
) -> None:
    """Import objects of the result OUT that were corrected in QuPath and exported as GeoJSON.

    An outline with the id of an object of OUT is that object, maybe of another class or shape.
    Other outlines are added objects. The corrected objects become a table of their own, which
    `measure --edited` and `evaluate --truth-label NAME.edited` read; labels and objects of OUT stay
    as they are. The table is there whole, or stays as it was before.
    """
    with interruptible(), logging_to(None, verbose=ctx.meta[VERBOSE]):
        report = wsi_unet.import_annotations(
            files,
            result,
            label=label,
            complete=complete,
            complete_within=complete_within,
            new_classes=new_classes,
            ignore=ignore,
            origin=origin,
        )
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)


def _show(report: CorrectionsReport) -> None:
    counts = report.counts
    left_out = [
        (counts.ignored, "of ignored classes"),
        (counts.of_other_groups, "of other label groups"),
        (counts.empty, "that cover no pixel"),
    ]
    print_facts(
        f"{report.table}: {count(counts.objects, 'object')}",
        [
            ("edits", edits_in_words(counts.model_dump())),
            (
                "left out",
                ", ".join(
                    f"{count(number, 'outline')} {why}" for number, why in left_out if number
                ),
            ),
        ],
    )
    show_edited_classes([each.model_dump() for each in report.classes], report.unit)
    if counts.absent:
        say(
            f"{count(counts.absent, 'object')} that aren't in the files stay as they are; if they "
            "were deleted, say --complete or --complete-within ANNOTATIONS"
        )
    if not report.written:
        say("the same import is there already; nothing was written")

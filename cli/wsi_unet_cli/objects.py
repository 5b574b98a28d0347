"""`wsi-unet objects`: find, measure and count the objects of a finished result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import wsi_unet
from wsi_unet.wording import count
from wsi_unet_cli.common.interrupt import interruptible
from wsi_unet_cli.common.options import json_option, verbose_option
from wsi_unet_cli.common.output import duration, print_facts, print_json, print_table, say

if TYPE_CHECKING:
    from wsi_unet.objects.report import LabelObjects

EPILOG = """\
\b
Examples:
  wsi-unet objects slide.ome.zarr
  wsi-unet objects slide.ome.zarr --split distance:0.75 --min-area 10
  wsi-unet objects slide.ome.zarr --split nuclei=distance:0.75 --max-area nuclei=400
  wsi-unet objects s3://bucket/slide.ome.zarr --json

docs/reference/objects.md defines every column.
"""


def _parse_per_class(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str | None, str] | None:
    """Parse values of the form `[CLASS=]VALUE`; later ones win."""
    parsed: dict[str | None, str] = {}
    for text in values:
        name, equals, value = text.rpartition("=")
        parsed[name if equals else None] = value
    return parsed or None


def _parse_areas(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str | None, float] | None:
    parsed = {}
    for name, value in (_parse_per_class(ctx, param, values) or {}).items():
        try:
            parsed[name] = float(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not an area in µm².") from error
    return parsed or None


@click.command(epilog=EPILOG, short_help="Find, measure and count a result's objects.")
@click.argument("result", metavar="OUT")
@click.option("--label", metavar="NAME", help="Label group.  [default: all that the result holds]")
@click.option(
    "--split",
    multiple=True,
    callback=_parse_per_class,
    metavar="[CLASS=]RULE",
    help="How touching objects are told apart, of one class or of all: none, or distance:H, which "
    "cuts where the distance to the edge falls by more than H µm between two maxima; may be given "
    "several times.  [default: as the model's card says]",
)
@click.option(
    "--min-area",
    multiple=True,
    callback=_parse_areas,
    metavar="[CLASS=]A",
    help="Drop and count objects smaller than this, in µm².",
)
@click.option(
    "--max-area",
    multiple=True,
    callback=_parse_areas,
    metavar="[CLASS=]A",
    help="Drop and count objects larger than this, in µm².",
)
@json_option
@verbose_option
def objects(
    result: str,
    label: str | None,
    split: dict[str | None, str] | None,
    min_area: dict[str | None, float] | None,
    max_area: dict[str | None, float] | None,
    as_json: bool,
) -> None:
    """Find the objects in the finished labels of the result OUT, and write a table of them.

    An object is an 8-connected component of a class, or a part of one. The table, GeoParquet files
    under OUT/objects/, has a row per object, with identity, outline and measurements; it depends on
    the labels and the rule alone. The same command completes an interrupted table; with another
    rule it makes the table anew. Where the slide's pixel size isn't known, µm mean its pixels.
    """
    with interruptible():  # so that the output is unlocked
        report = wsi_unet.find_objects(
            result, label=label, split=split, min_area=min_area, max_area=max_area
        )
    if as_json:
        print_json(report.to_json())
        return
    for each in report.labels:
        _show(each)
    say(f"took {duration(report.seconds)}")


def _show(found: LabelObjects) -> None:
    area = "" if found.area_mm2 is None else f"{found.area_mm2:.4g} mm² looked at"
    print_facts(
        f"{found.label}: {count(found.objects, 'object')}",
        [
            ("area", area),
            ("unit", "" if found.unit == "µm" else "pixels of the slide: their size isn't known"),
            ("parts", f"{found.parts}, {found.computed} of them computed now"),
        ],
    )
    print_table(
        (
            "value",
            "class",
            "objects",
            "per mm²",
            f"mean {found.unit}²",
            "split",
            "dropped",
            "large",
        ),
        [
            (
                str(item.value),
                item.name,
                str(item.objects),
                _number(item.density_per_mm2),
                _number(item.mean_area),
                item.rule,
                f"{item.dropped_small} small, {item.dropped_large} large",
                str(item.large),
            )
            for item in found.classes
        ],
    )


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"

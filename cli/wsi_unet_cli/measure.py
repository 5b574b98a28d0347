"""`wsi-unet measure`: areas and objects of each class in annotated regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from wsi_unet_cli.common.cluster_options import logging_to
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.options import json_option, verbose_option
from wsi_unet_cli.common.output import percent, print_json, print_table, say
from wsi_unet_cli.common.quick_imports import quick_imports

if TYPE_CHECKING:
    import pyarrow as pa

EPILOG = """\
\b
Examples:
  wsi-unet measure slide.ome.zarr --regions regions.geojson
  wsi-unet measure slide.ome.zarr --regions regions.geojson --output regions.csv
  wsi-unet measure a.ome.zarr b.ome.zarr --regions annotations/ --output cohort-regions.parquet
  wsi-unet measure slide.ome.zarr --regions regions.xml --areas-only
  wsi-unet measure slide.ome.zarr --regions regions.geojson --edited

docs/reference/measure.md defines every column.
"""

SMALL_AREA = 0.001
"""mm² below which areas are shown in µm²."""

Row = Mapping[str, Any]


@click.command(epilog=EPILOG, short_help="Measure annotated regions: areas, objects.")
@click.argument("results", metavar="OUT...", nargs=-1, required=True)
@click.option(
    "--regions",
    required=True,
    metavar="ANNOTATIONS|FOLDER",
    help="Outlines to measure in (GeoJSON or ASAP XML), in full-resolution pixels of the slide; or "
    "a folder with a file per slide: a.geojson for a.ome.zarr.",
)
@click.option(
    "-o",
    "--output",
    metavar="TABLE",
    help="Write all columns to this .csv or .parquet file, in place of an earlier one.  [default: "
    "show the main ones]",
)
@click.option("--label", metavar="NAME", help="Label group.  [default: all that a result holds]")
@click.option(
    "--areas-only",
    is_flag=True,
    help="Measure areas and leave objects out, which then needn't have been found.",
)
@click.option(
    "--edited",
    is_flag=True,
    help="Measure the objects as they were corrected (`wsi-unet import-annotations`); areas are "
    "those of their pixels.",
)
@json_option
@verbose_option
@click.pass_context
def measure(
    ctx: click.Context,
    results: tuple[str, ...],
    regions: str,
    output: str | None,
    label: str | None,
    areas_only: bool,
    edited: bool,
    as_json: bool,
) -> None:
    """Measure regions of finished results: areas of each class, and its objects.

    For each result OUT, region and class: the region's area, where the model looked; the class's
    area and share of it; and, once `wsi-unet objects` has found them, the number of objects whose
    centroid lies in the region, their density, and mean and median of what they measure. Regions
    may overlap.
    """
    with quick_imports():
        from wsi_unet.measuring.files import check_table_path, write_table
        from wsi_unet.measuring.run import measure as measure_regions

    if output is not None:
        check_table_path(output)
    with logging_to(None, verbose=ctx.meta[VERBOSE]):
        table = measure_regions(results, regions, label=label, areas_only=areas_only, edited=edited)
    written = None if output is None else write_table(table, output)
    if as_json:
        print_json({"rows": table.to_pylist()})
    elif written is None:
        _show(table)
    else:
        say(f"table  {written} ({len(table)} rows)")


def _show(table: pa.Table) -> None:
    """Print the main columns; names of results and label groups where there are several."""
    rows = table.to_pylist()
    columns = {heading: [write(row) for row in rows] for heading, write in _COLUMNS.items()}
    for heading in ("result", "label"):
        if len(set(columns[heading])) < 2:
            del columns[heading]
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    print_table(tuple(shown), zip(*shown.values(), strict=True))


def _name_region(row: Row) -> str:
    name, of_class = row["region_name"], row["region_class"]
    return name if of_class in (None, name) else f"{name} ({of_class})"


def _area(name: str) -> Callable[[Row], str]:
    """Return what writes an area of a row."""

    def write(row: Row) -> str:
        area = row.get(f"{name}_mm2")
        if area is not None:
            return f"{1e6 * area:.4g} µm²" if 0 < area < SMALL_AREA else f"{area:.4g} mm²"
        return f"{row[f'{name}_px']} px"

    return write


def _number(name: str) -> Callable[[Row], str]:
    """Return what writes a number of a row; "" if there is no such column."""

    def write(row: Row) -> str:
        if name not in row:
            return ""
        return "n/a" if row[name] is None else f"{row[name]:.4g}"

    return write


def _object_area(row: Row) -> str:
    """Return the mean area of a row's objects, and their median; "" without such columns."""
    if "objects" not in row:
        return ""
    for unit, symbol in (("um2", "µm²"), ("px", "px")):
        if row.get(f"area_{unit}_mean") is not None:
            mean, median = row[f"area_{unit}_mean"], row[f"area_{unit}_median"]
            return f"{mean:.4g}, {median:.4g} {symbol}"
    return "n/a"


def _share(name: str) -> Callable[[Row], str]:
    return lambda row: "n/a" if row[name] is None else percent(row[name])


_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "result": lambda row: row["result"],
    "label": lambda row: row["label"],
    "region": lambda row: str(row["region"]),
    "name": _name_region,
    "looked at": _share("region_predicted"),
    "area": _area("region_area"),
    "class": lambda row: row["class"],
    "class area": _area("class_area"),
    "share": _share("share"),
    "objects": lambda row: "n/a" if row.get("objects", 0) is None else str(row.get("objects", "")),
    "per mm²": _number("objects_per_mm2"),
    "mean, median area": _object_area,
}

"""`wsi-unet info`: show what a slide is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import wsi_unet
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.options import (
    json_option,
    reader_option,
    series_option,
    verbose_option,
)
from wsi_unet_cli.common.output import (
    micrometres,
    pixels,
    print_facts,
    print_json,
    print_table,
    say,
)
from wsi_unet_cli.common.reports import warning_lines

if TYPE_CHECKING:
    from wsi_unet import Slide
    from wsi_unet.slides.series import Series

EPILOG = """\
\b
Examples:
  wsi-unet info slide.svs
  wsi-unet info slide.svs --json
"""


@click.command(epilog=EPILOG, short_help="Show what a slide is: size, levels, pixel size.")
@click.argument("slide", metavar="SLIDE")
@reader_option
@series_option
@json_option
@verbose_option
@click.pass_context
def info(ctx: click.Context, slide: str, reader: str, series: str | None, as_json: bool) -> None:
    """Show vendor, size, levels, pixel size, compression and reader of SLIDE.

    If its file holds several images, they are listed, too. With -v, also list the properties in the
    file itself.
    """
    with wsi_unet.open_slide(slide, reader=reader, series=series) as opened:
        if as_json:
            print_json(describe_slide(opened))
        else:
            _show(opened, verbose=ctx.meta.get(VERBOSE, False))


def describe_slide(slide: Slide) -> dict[str, object]:
    """Return the facts about a slide as a JSON document.

    Sizes are level pixels, `downsample` is level-0 px per level px, `mpp` is µm per level-0 px.
    """
    return {
        "slide": slide.path,
        "vendor": slide.vendor,
        "reader": slide.reader,
        "compression": slide.compression,
        "width": slide.shape[1],
        "height": slide.shape[0],
        "mpp": None if slide.mpp is None else {"x": slide.mpp.x, "y": slide.mpp.y},
        "levels": [
            {
                "width": level.shape[1],
                "height": level.shape[0],
                "downsample": {"x": level.downsample[1], "y": level.downsample[0]},
            }
            for level in slide.levels
        ],
        "series": [
            {
                "name": series.name,
                "width": series.shape[1],
                "height": series.shape[0],
                "levels": series.levels,
                "refusal": series.refusal,
            }
            for series in slide.series
        ],
        "warnings": list(slide.warnings),
        "properties": dict(slide.properties),
    }


def _use(series: Series) -> str:
    return "" if series.refusal is None else f"no slide: it {series.refusal}"


def _show(slide: Slide, *, verbose: bool) -> None:
    mpp = slide.mpp
    rows, columns = slide.shape
    extent = "" if mpp is None else f" ({columns * mpp.x / 1e3:.2f} × {rows * mpp.y / 1e3:.2f} mm)"
    print_facts(
        slide.name,
        [
            ("vendor", slide.vendor or "unknown"),
            ("size", pixels(slide.shape) + extent),
            ("pixel size", "unknown" if mpp is None else micrometres(mpp.y, mpp.x)),
            ("compression", slide.compression or "unknown"),
            ("reader", slide.reader),
        ],
    )
    print_table(
        ("  level", "size", "downsample"),
        [
            (f"  {number}", pixels(level.shape), f"{level.downsample[1]:.4g}")
            for number, level in enumerate(slide.levels)
        ],
    )
    if len(slide.series) > 1:
        print_table(
            ("  series", "name", "size", "levels", "note"),
            [
                (f"  {number}", series.name, pixels(series.shape), str(series.levels), _use(series))
                for number, series in enumerate(slide.series)
            ],
        )
    for line in warning_lines(slide.warnings):
        say(line)
    if verbose:
        print_facts("properties", sorted(slide.properties.items()))

"""`wsi-unet overlay`: draw a picture of a result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import wsi_unet
from wsi_unet_cli.common.options import parse_region, verbose_option
from wsi_unet_cli.common.output import say

if TYPE_CHECKING:
    from wsi_unet.ground_truth.grids import Region

EPILOG = """\
\b
Examples:
  wsi-unet overlay slide.ome.zarr
  wsi-unet overlay slide.ome.zarr --output figure.png --size 4096
  wsi-unet overlay slide.ome.zarr --region 4096,0,2048,2048 --label tumour --label nuclei
"""

SUFFIXES = (".zarr", ".ome")


@click.command(epilog=EPILOG, short_help="Draw a result over its slide as a PNG.")
@click.argument("result", metavar="OUT")
@click.option(
    "-o",
    "--output",
    metavar="PNG",
    help="File to write.  [default: ./<the result's name>-overlay.png]",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME",
    help="Label group to draw; may be given several times.  [default: all that the result holds]",
)
@click.option(
    "--region",
    callback=parse_region,
    metavar="X,Y,W,H",
    help="Draw only this part of the slide, in full-resolution pixels.",
)
@click.option(
    "--size",
    "max_side",
    type=click.IntRange(min=64, max=32768),
    default=2048,
    show_default=True,
    metavar="N",
    help="Longest side of the picture, in pixels; at most that of the labels.",
)
@verbose_option
def overlay(
    result: str,
    output: str | None,
    labels: tuple[str, ...],
    region: Region | None,
    max_side: int,
) -> None:
    """Draw the labels of the result OUT over its slide and write a PNG.

    A dashed line surrounds what the model looked at, where that isn't the whole slide. Where
    wsi-unet objects has split or selected objects, and they are at least some pixels of the picture
    wide, each has an outline of its own.
    """
    png = output if output is not None else f"{_stem(result)}-overlay.png"
    written = wsi_unet.write_overlay(
        result, png, label=labels or None, max_side=max_side, region=region
    )
    say(f"overlay  {written}")


def _stem(result: str) -> str:
    name = Path(result).name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name or "result"

"""Options that several commands share, and how their values are parsed.

An unusable value is a usage error (exit code 2).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from wsi_unet.errors import OptionError
from wsi_unet.labels.pyramid import is_block_side
from wsi_unet.models.inference.augmentation import VIEWS
from wsi_unet.models.inference.device_names import parse_device_name
from wsi_unet.segmentation.planning.options import OUTPUTS
from wsi_unet.slides.opening import READERS as SLIDE_READERS
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.text import COMMAND, speak

if TYPE_CHECKING:
    from wsi_unet.ground_truth.grids import Region

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

READERS = ("auto", *SLIDE_READERS)
TTAS = tuple(VIEWS)
ENSEMBLES = ("mean",)


def parse_region(ctx: click.Context, param: click.Parameter, value: str | None) -> Region | None:
    """Parse `X,Y,W,H`: four whole numbers, level-0 pixels."""
    if value is None:
        return None
    match = re.fullmatch(r"\s*([0-9]+)\s*,\s*([0-9]+)\s*,\s*([0-9]+)\s*,\s*([0-9]+)\s*", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not four whole numbers X,Y,W,H.")
    x, y, width, height = (int(number) for number in match.groups())
    if not width or not height:
        raise click.BadParameter(f"{value!r} is empty: width and height must be at least 1.")
    return x, y, width, height


def parse_block(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    """Check the side of a block: 512, 1024, 2048, 4096 … pixels."""
    if value is not None and not is_block_side(value):
        raise click.BadParameter(f"{value} is not 512 times a power of two (512, 1024, 2048 …).")
    return value


def parse_tile(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Parse the side of a tile in pixels; `auto` (the plan chooses) becomes None."""
    if value == "auto":
        return None
    if re.fullmatch(r"0*[1-9][0-9]*", value):
        return int(value)
    raise click.BadParameter(f"{value!r} is neither 'auto' nor a number of pixels.")


def parse_device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check that a device is spelled `auto`, `cpu`, `cuda` or `cuda:INDEX`."""
    try:
        parse_device_name(value)
    except OptionError as error:
        raise click.BadParameter(speak(str(error))) from error
    return value


def parse_outputs(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Parse a comma-separated choice of what to write, in the order of `OUTPUTS`."""
    names = [name.strip() for name in value.split(",")]
    for name in names:
        if name not in OUTPUTS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(OUTPUTS)}.")
    if "labels" not in names:
        raise click.BadParameter("Labels are always written: give labels, or labels,objects.")
    return tuple(name for name in OUTPUTS if name in names)


def _remember_command(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[VERBOSE] = value
    ctx.meta[COMMAND] = ctx.command


def verbose_option(command: Decorated) -> Decorated:
    """Add `-v`. Every command has it, and leaves in the context what error messages need."""
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_remember_command,
        help="Show more, and the traceback of an error.",
    )(command)


def json_option(command: Decorated) -> Decorated:
    """Add `--json`."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print one JSON document on stdout instead of text.",
    )(command)


def trust_option(command: Decorated) -> Decorated:
    """Add `--trust`."""
    return click.option(
        "--trust",
        is_flag=True,
        help="Accept a program that can run any code when loaded (TorchScript, torch.export).",
    )(command)


def reader_option(command: Decorated) -> Decorated:
    """Add `--reader`."""
    return click.option(
        "--reader",
        type=click.Choice(READERS),
        default="auto",
        show_default=True,
        help="Reader that opens the slide.",
    )(command)


def series_option(command: Decorated) -> Decorated:
    """Add `--series`."""
    return click.option(
        "--series",
        metavar="N|NAME",
        help="Image to read, of several in the slide's file: its number or name, as info lists "
        "them.  [default: the largest]",
    )(command)

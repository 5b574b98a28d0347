"""The entry point `wsi-unet`: its commands, and how errors are shown."""

from __future__ import annotations

import errno
import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click

from wsi_unet._version import __version__
from wsi_unet_cli.common.failures import VERBOSE, exit_code, show_error
from wsi_unet_cli.common.outcome import ARGUMENTS
from wsi_unet_cli.common.quick_imports import skip_last_collection
from wsi_unet_cli.common.text import printable
from wsi_unet_cli.doctor import doctor
from wsi_unet_cli.evaluate import evaluate
from wsi_unet_cli.export import export
from wsi_unet_cli.import_annotations import import_annotations
from wsi_unet_cli.info import info
from wsi_unet_cli.measure import measure
from wsi_unet_cli.model.command import model
from wsi_unet_cli.models import models
from wsi_unet_cli.objects import objects
from wsi_unet_cli.overlay import overlay
from wsi_unet_cli.segment.command import segment
from wsi_unet_cli.status import status
from wsi_unet_cli.train.command import train
from wsi_unet_cli.view import view

EPILOG = """\
\b
Examples:
  wsi-unet segment slide.svs           segment a slide with the bundled model
  wsi-unet view slide.ome.zarr         look at slide and labels in the browser
  wsi-unet status slide.ome.zarr       see how far a run is

Exit codes: 0 finished, 1 incomplete or failed, 2 wrong usage or unusable input.

For research, not for diagnosis.
"""


class CommandLine(click.Group):
    """The group of commands; an error of any of them becomes one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names in the order in which they are used."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as typed, so that an interrupted run can show how to resume it."""
        ctx.meta[ARGUMENTS] = tuple(args)
        with _printable_messages():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; show an error that click doesn't handle, and exit."""
        try:
            with _printable_messages():
                return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our output is gone; click exits quietly
            show_error(error, verbose=ctx.meta.get(VERBOSE, False))
            ctx.exit(exit_code(error))


@contextmanager
def _printable_messages() -> Iterator[None]:
    """Make click's messages printable: arguments may be file names that a shell's "*" found."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = printable(error.message)
        raise


@click.group(
    cls=CommandLine,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="wsi-unet")
def cli() -> None:
    """Segment whole slides with a U-Net, exactly, into pyramidal OME-Zarr.

    However a slide is cut into tiles and blocks, and however often a run is interrupted, the
    labels are those of one pass of the network over the whole slide.
    """


COMMANDS = (
    segment,
    info,
    status,
    objects,
    measure,
    overlay,
    view,
    export,
    import_annotations,
    evaluate,
    train,
    models,
    model,
    doctor,
)
for command in COMMANDS:
    cli.add_command(command)


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Write a library's warning as one printable line; it may quote a file."""
    return printable(f"warning: {category.__name__}: {message}") + "\n"


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal has no µ
    warnings.formatwarning = _format_warning
    try:
        cli(prog_name="wsi-unet")
    finally:
        skip_last_collection()

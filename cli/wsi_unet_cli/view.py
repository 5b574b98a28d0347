"""`wsi-unet view`: show a slide and its results in the browser."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_unet_cli.common.cluster_options import logging_to
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.options import series_option, verbose_option
from wsi_unet_cli.common.output import say
from wsi_unet_cli.common.text import speak

if TYPE_CHECKING:
    from wsi_unet.viewer.server import Serving

EPILOG = """\
\b
Examples:
  wsi-unet view slide.ome.zarr
  wsi-unet view results/
  wsi-unet view slide.svs --port 8000 --no-open

docs/guides/view.md describes the page, and how to reach it from another machine.
"""


@click.command(epilog=EPILOG, short_help="Show slides and results in the browser.")
@click.argument("target", metavar="OUT")
@click.option(
    "--slide",
    metavar="PATH",
    help="The slide of the result.  [default: where it was segmented, or beside the result]",
)
@series_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port to listen at.  [default: any free one]",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="HOST",
    help="Interface to listen at; others than loopback let other machines connect.",
)
@click.option("--tls-cert", metavar="FILE", help="Certificate (PEM), to encrypt the connection.")
@click.option("--tls-key", metavar="FILE", help="Its key (PEM).")
@click.option("--no-open", is_flag=True, help="Print the address, but open no browser.")
@verbose_option
@click.pass_context
def view(
    ctx: click.Context,
    target: str,
    slide: str | None,
    series: str | None,
    port: int,
    host: str,
    tls_cert: str | None,
    tls_key: str | None,
    no_open: bool,
) -> None:
    """Show OUT in the browser: a result, a folder of results, or a slide, until Ctrl-C.

    The page shows the slide at full resolution, the classes and objects that were found, where the
    model looked, and what a run that is still going on has done so far. It is only served to this
    machine, and only to who has the address, which holds a token. Nothing is changed.
    """
    from wsi_unet.viewer.server import ServerOptions
    from wsi_unet.viewer.server import view as serve

    def start(serving: Serving) -> None:
        for note in serving.notes:
            say(f"warning: {speak(note)}", err=True)
        say(f"view  {serving.address}  (Ctrl-C ends)")
        sys.stdout.flush()
        if not no_open and _has_screen():
            page = stack.enter_context(_leading_to(serving.address))
            threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()

    options = ServerOptions(host=host, port=port, tls_cert=tls_cert, tls_key=tls_key)
    with logging_to(None, verbose=ctx.meta[VERBOSE]), ExitStack() as stack:
        serve(target, slide, series=series, options=options, on_start=start)


@contextmanager
def _leading_to(address: str) -> Iterator[str]:
    """Yield the URL of a file that leads to an address: command lines are seen by other users."""
    with tempfile.NamedTemporaryFile("w", prefix="wsi-unet-view-", suffix=".html") as file:
        file.write(f'<meta http-equiv="refresh" content="0; url={address}">')
        file.flush()
        yield Path(file.name).as_uri()


def _has_screen() -> bool:
    """Return whether a browser would have a window, rather than take over the terminal."""
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))

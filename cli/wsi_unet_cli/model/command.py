"""`wsi-unet model`: what is done to one model."""

from __future__ import annotations

import click

from wsi_unet_cli.model.importing import import_
from wsi_unet_cli.model.inspect import inspect
from wsi_unet_cli.model.verify import verify


@click.group(short_help="Import a model, look at it, prove it.")
def model() -> None:
    """Bring a model from elsewhere, look at what it is, and prove what it says of itself."""


for command in (import_, inspect, verify):
    model.add_command(command)

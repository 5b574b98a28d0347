"""`wsi-unet model`: import, inspect or verify one model."""

from __future__ import annotations

import click

from wsi_unet_cli.model.importing import import_
from wsi_unet_cli.model.inspect import inspect
from wsi_unet_cli.model.verify import verify


@click.group(short_help="Import, inspect or verify a model.")
def model() -> None:
    """Import a model from elsewhere, inspect a model, or verify what it declares."""


for command in (import_, inspect, verify):
    model.add_command(command)

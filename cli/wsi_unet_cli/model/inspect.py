"""`wsi-unet model inspect`: show what a model or a checkpoint is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from wsi_unet_cli.common.options import json_option, trust_option, verbose_option
from wsi_unet_cli.common.output import print_json
from wsi_unet_cli.model.facts import model_document, show_model

if TYPE_CHECKING:
    from wsi_unet.models import ModelSpec
    from wsi_unet.models.importing.families import NeededHint

EPILOG = """\
\b
Examples:
  wsi-unet model inspect nuclei-he
  wsi-unet model inspect unet.pth --json
  wsi-unet model inspect run.ckpt --entry ema.model
"""


@click.command(epilog=EPILOG, short_help="Show what a model or checkpoint is.")
@click.argument("model", metavar="MODEL|CHECKPOINT")
@click.option(
    "--entry",
    metavar="A.B",
    help="Where in a checkpoint the network lies, if there are several.",
)
@trust_option
@json_option
@verbose_option
def inspect(model: str, entry: str | None, trust: bool, as_json: bool) -> None:
    """Show family, shape, classes, border, period, tiles and exactness of MODEL.

    For a CHECKPOINT that hasn't been imported yet, also show the options that its import needs. No
    weights are loaded. A program that hasn't been imported yet is measured.
    """
    spec, family, needed = _recognise(model, entry, trust=trust)
    choices = {f"--{hint.option}": list(hint.choices) for hint in needed}
    if as_json:
        document: dict[str, Any] = {"path": model, "family": family, "must_be_told": choices}
        print_json(document | model_document(spec))
        return
    options = ", ".join(f"{option} {'|'.join(values)}" for option, values in choices.items())
    if options:
        options += f" (shown as {', '.join(values[0] for values in choices.values())})"
    show_model(spec, title=model, needed=options)


def _recognise(
    source: str, entry: str | None, *, trust: bool
) -> tuple[ModelSpec, str | None, tuple[NeededHint, ...]]:
    """Return the spec and, for a checkpoint, its family and the hints that it needs.

    The spec of a checkpoint that needs hints is inferred from their first choices.
    """
    from wsi_unet.models.importing.checkpoint_file import is_checkpoint
    from wsi_unet.models.importing.checkpoints import infer_spec, recognise_checkpoint
    from wsi_unet.models.importing.hints import ImportHints
    from wsi_unet.models.importing.programs import import_program
    from wsi_unet.models.model import read_spec
    from wsi_unet.models.program_file import open_program

    if open_program(source) is not None:
        return import_program(source, trust=trust)[1], "program", ()
    if not is_checkpoint(source):
        return read_spec(source), None, ()
    checkpoint = recognise_checkpoint(source, entry=entry)
    needed = checkpoint.needed_hints
    first: dict[str, Any] = {hint.option: hint.choices[0] for hint in needed}
    return infer_spec(checkpoint, ImportHints(**first)), checkpoint.family.name, needed

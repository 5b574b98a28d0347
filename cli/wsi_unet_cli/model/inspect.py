"""`wsi-unet model inspect`: what a model or a checkpoint is."""

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
"""


@click.command(epilog=EPILOG, short_help="Show what a model or checkpoint is.")
@click.argument("model", metavar="MODEL|CHECKPOINT")
@trust_option
@json_option
@verbose_option
def inspect(model: str, trust: bool, as_json: bool) -> None:
    """Show family, shape, classes, border, period, tiles and exactness of MODEL.

    Of a CHECKPOINT that was not imported yet, also what must be told. No weights are loaded. A
    program that was not imported yet is measured.
    """
    spec, family, questions = _look(model, trust=trust)
    told = ", ".join(f"{one.option} {'|'.join(one.choices)}" for one in questions)
    if as_json:
        asked = {one.option: list(one.choices) for one in questions}
        document: dict[str, Any] = {"path": model, "family": family, "must_be_told": asked}
        print_json(document | model_document(spec))
        return
    if told:
        told += f" (shown as {', '.join(one.choices[0] for one in questions)})"
    show_model(spec, title=model, told=told)


def _look(source: str, *, trust: bool) -> tuple[ModelSpec, str | None, tuple[NeededHint, ...]]:
    """Return the spec, and of a checkpoint its family and what must be told.

    Until that is told, the spec is that of the first choices.
    """
    from wsi_unet.models.model import read_spec
    from wsi_unet.models.importing.checkpoint_file import is_checkpoint
    from wsi_unet.models.importing.checkpoints import infer_spec, recognise_checkpoint
    from wsi_unet.models.importing.hints import ImportHints
    from wsi_unet.models.importing.programs import import_program
    from wsi_unet.models.program_file import open_program

    if open_program(source) is not None:
        return import_program(source, trust=trust)[1], "program", ()
    if not is_checkpoint(source):
        return read_spec(source), None, ()
    found = recognise_checkpoint(source)
    first: dict[str, Any] = {
        question.option.removeprefix("--"): question.choices[0] for question in found.questions
    }
    return infer_spec(found, ImportHints(**first)), found.family.name, found.questions

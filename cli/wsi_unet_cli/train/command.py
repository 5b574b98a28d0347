"""`wsi-unet train`: a model from annotated images or slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

import wsi_unet
from wsi_unet_cli.common.cluster_options import logging_to
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.interrupt import interruptible
from wsi_unet_cli.common.options import json_option, parse_device, verbose_option
from wsi_unet_cli.common.outcome import (
    ARGUMENTS,
    EXIT_FAILED,
    EXIT_OK,
    CommandOutcome,
    show_resume_command,
)
from wsi_unet_cli.common.output import print_json, say_lines
from wsi_unet_cli.common.progress import open_display
from wsi_unet_cli.train.progress import SECONDS_BETWEEN_LINES, describe_training
from wsi_unet_cli.train.reports import show_training, show_training_plan

if TYPE_CHECKING:
    from wsi_unet.training.recipe import Recipe
    from wsi_unet.training.report import TrainingProgress
    from wsi_unet.training.runtime import TrainingArguments

INTERRUPTED = "interrupted; what was learnt is kept. To resume:"
STOPPED = "interrupted at once; what was saved last is kept. To resume:"
TOO_EARLY = "interrupted before anything was learnt. To start again:"

EPILOG = """\
\b
Examples:
  wsi-unet train --show modern > my-recipe.toml
  wsi-unet train my-recipe.toml --data slides/ --check
  wsi-unet train my-recipe.toml --data slides/ --output my-model
  wsi-unet train my-recipe.toml --set running.iterations=300 --set optimiser.rate=1e-3
  wsi-unet train my-recipe.toml --output my-model --resume

docs/reference/recipes.md explains recipes. MODEL always holds the best network so far; its folder
"training" holds what --resume needs, a journal and pictures.
"""


def show_recipe(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Print a shipped recipe and exit."""
    if value is None or ctx.resilient_parsing:
        return
    from wsi_unet.training.recipe_file import shipped_recipes

    shipped = shipped_recipes()
    if value not in shipped:
        raise click.BadParameter(f"{value!r} is none of {', '.join(shipped)}.")
    say_lines(shipped[value].read_text(encoding="utf-8"))
    ctx.exit()


@click.command(epilog=EPILOG, short_help="Train a model on annotated images or slides.")
@click.argument("recipe", metavar="RECIPE", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="MODEL",
    type=click.Path(path_type=Path),
    help="Folder of the model.  [default: ./<the recipe's name>]",
)
@click.option(
    "--data",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Folder that paths in the recipe are relative to.  [default: the recipe's folder]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the recipe, like running.iterations=300; may be given several times.",
)
@click.option("--resume", is_flag=True, help="Continue the training in MODEL, if there is one.")
@click.option("--overwrite", is_flag=True, help="Replace the model and the training in MODEL.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=parse_device,
    metavar="auto|cpu|cuda[:i]",
    help="Device that the network runs on.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    help="Number of processes that make samples; 0: this process makes them.  [default: as many "
    "as cores and batch can keep busy, at most 16]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of CPU cores for the network.  [default: all]",
)
@click.option("--tensorboard", is_flag=True, help="Also write logs for TensorBoard.")
@click.option("--check", is_flag=True, help="Open all data, show what would be done, and exit.")
@click.option(
    "--show",
    is_eager=True,
    expose_value=False,
    callback=show_recipe,
    metavar="NAME",
    help="Print a recipe to start from (paper or modern) and exit.",
)
@click.option(
    "--log",
    "log_file",
    metavar="FILE",
    help="Append events to this file, one JSON object per line; - is stderr.",
)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@verbose_option
@click.pass_context
def train(
    ctx: click.Context,
    recipe: Path,
    output: Path | None,
    data: Path | None,
    settings: tuple[str, ...],
    check: bool,
    log_file: str | None,
    as_json: bool,
    quiet: bool,
    **options: Unpack[TrainingArguments],
) -> None:
    """Train a network from RECIPE, a TOML file, and write it as a model.

    The data are pairs of images and label images, or slides with annotations (GeoJSON, ASAP XML) or
    label OME-Zarrs. Ctrl-C ends the training after the iteration, with everything saved: --resume
    continues it, and on a CPU in float32 gives the same weights as without a stop.
    """
    from wsi_unet.models.inference.devices import keep_freed_memory
    from wsi_unet.training.recipe_file import read_recipe

    started = False
    with interruptible() as check_interrupted, logging_to(log_file, verbose=ctx.meta[VERBOSE]):
        try:
            read = read_recipe(recipe, settings)
            folder = recipe.parent if data is None else data
            if check:
                _check(read, folder, options, as_json=as_json)
                return
            keep_freed_memory()
            with open_display(
                read.name, describe_training, quiet=quiet, seconds_between=SECONDS_BETWEEN_LINES
            ) as display:

                def show(progress: TrainingProgress) -> None:
                    nonlocal started
                    check_interrupted()
                    started = progress.phase != "opening"
                    display(progress)

                training = wsi_unet.train(
                    read,
                    output or read.name,
                    data=folder,
                    on_progress=show,
                    **options,
                )
        except KeyboardInterrupt:  # while importing, opening data or writing the last file
            given = ctx.meta[ARGUMENTS]
            outcome = CommandOutcome(
                EXIT_FAILED, STOPPED if started else TOO_EARLY, started=started
            )
            show_resume_command(outcome, _with_resume(given) if started else given)
            ctx.exit(EXIT_FAILED)
    interrupted = training.state == "interrupted"
    code = EXIT_FAILED if interrupted else EXIT_OK
    if as_json:
        print_json({"exit_code": code, **training.to_json()})
    else:
        show_training(training)
    if interrupted:
        outcome = CommandOutcome(code, INTERRUPTED, started=True)
        show_resume_command(outcome, _with_resume(ctx.meta[ARGUMENTS]))
    ctx.exit(code)


def _with_resume(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that resume what these have started."""
    return [*arguments, *([] if "--resume" in arguments else ["--resume"])]


def _check(recipe: Recipe, data: Path, options: TrainingArguments, *, as_json: bool) -> None:
    from wsi_unet.training.plan import plan_training

    plan = plan_training(
        recipe,
        data=data,
        device=options["device"],
        workers=options["workers"],
        threads=options["threads"],
    )
    if as_json:
        print_json(plan.to_json())
    else:
        show_training_plan(plan)

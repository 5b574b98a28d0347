"""`wsi-unet train`: from annotated images or slides to a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

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
from wsi_unet_cli.common.output import duration, percent, print_facts, print_json
from wsi_unet_cli.evaluate import score
from wsi_unet_cli.train.progress import training_display

if TYPE_CHECKING:
    from wsi_unet import Training
    from wsi_unet.training.plan import TrainingPlan
    from wsi_unet.training.recipe import Recipe
    from wsi_unet.training.report import TrainingProgress
    from wsi_unet.training.runtime import TrainingArguments

INTERRUPTED = "interrupted; what was learnt is kept. To go on:"
STOPPED = "interrupted at once; what was last written down is kept. To go on:"
TOO_EARLY = "interrupted before anything was learnt. To begin again:"

EPILOG = """\
\b
Examples:
  wsi-unet train --show modern > my-recipe.toml
  wsi-unet train my-recipe.toml --data slides/ --check
  wsi-unet train my-recipe.toml --data slides/ --output my-model
  wsi-unet train my-recipe.toml --set running.iterations=300 --set optimiser.rate=1e-3
  wsi-unet train my-recipe.toml --output my-model --resume

What a recipe can say is told in docs/training.md. MODEL holds the best network so far at any time,
and in its folder "training" what goes on with it, a journal and pictures.
"""


def show_recipe(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Print a shipped recipe and end."""
    if value is None or ctx.resilient_parsing:
        return
    from wsi_unet.training.recipe_file import shipped_recipes

    shipped = shipped_recipes()
    if value not in shipped:
        raise click.BadParameter(f"{value!r} is none of {', '.join(shipped)}.")
    click.echo(shipped[value].read_text(encoding="utf-8"), nl=False)
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
    help="What paths in the recipe are relative to.  [default: the recipe's folder]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change something in the recipe, like running.iterations=300; may be given several times.",
)
@click.option("--resume", is_flag=True, help="Go on with the training in MODEL, if there is one.")
@click.option("--overwrite", is_flag=True, help="Replace the model, and the training, in MODEL.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=parse_device,
    metavar="auto|cpu|cuda[:i]",
    help="What the network runs on.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    help="Processes that make samples; 0: none but this.  [default: as many as --threads, each at "
    "least two of a batch, 0 for one; for a GPU as cores allow; 16 at most]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Cores for the network on a CPU.  [default: all]",
)
@click.option("--tensorboard", is_flag=True, help="Log for TensorBoard, too.")
@click.option("--check", is_flag=True, help="Open all data, say what would be done, and end.")
@click.option(
    "--show",
    is_eager=True,
    expose_value=False,
    callback=show_recipe,
    metavar="NAME",
    help="Print a recipe to start from, paper or modern, and end.",
)
@click.option(
    "--log",
    "log_file",
    metavar="FILE",
    help="Append what happens, one JSON object per line; - is stderr.",
)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
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
    """Train a network as RECIPE says, a TOML file, and write it as a model.

    The data are pairs of images and label images, or slides with annotations (GeoJSON, ASAP XML) or
    label OME-Zarrs. Ctrl-C ends it after the iteration, with everything kept: --resume goes on as
    if nothing had been, on a CPU in float32 to the last bit.
    """
    from wsi_unet.models.inference.devices import keep_freed_memory
    from wsi_unet.training.recipe_file import read_recipe

    begun = False
    with interruptible() as interruption, logging_to(log_file, verbose=ctx.meta[VERBOSE]):
        try:
            read = read_recipe(recipe, settings)
            folder = recipe.parent if data is None else data
            if check:
                _check(read, folder, options, as_json=as_json)
                return
            keep_freed_memory()
            with training_display(read.name, quiet=quiet) as display:

                def show(progress: TrainingProgress) -> None:
                    nonlocal begun
                    begun = progress.phase != "opening"
                    display(progress)

                found = wsi_unet.train(
                    read,
                    output or read.name,
                    data=folder,
                    on_progress=show,
                    interruption=interruption,
                    **options,
                )
        except KeyboardInterrupt:  # opening data, importing, or where it can't be taken up
            given = ctx.meta[ARGUMENTS]
            ending = CommandOutcome(EXIT_FAILED, STOPPED if begun else TOO_EARLY, begun=begun)
            show_resume_command(ending, _to_go_on(given) if begun else given)
            ctx.exit(EXIT_FAILED)
    interrupted = found.state == "interrupted"
    code = EXIT_FAILED if interrupted else EXIT_OK
    if as_json:
        print_json({"exit_code": code, **found.to_json()})
    else:
        show_training(found)
    if interrupted:
        again = CommandOutcome(code, INTERRUPTED, begun=True)
        show_resume_command(again, _to_go_on(ctx.meta[ARGUMENTS]))
    ctx.exit(code)


def _to_go_on(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that go on with what these have begun."""
    return [*arguments, *([] if "--resume" in arguments else ["--resume"])]


def _check(recipe: Recipe, data: Path, options: TrainingArguments, *, as_json: bool) -> None:
    from wsi_unet.training.plan import plan_training

    found = plan_training(
        recipe,
        data=data,
        device=options["device"],
        workers=options["workers"],
        threads=options["threads"],
    )
    if as_json:
        print_json(found.to_json())
    else:
        show_outlook(found)


def show_outlook(found: TrainingPlan) -> None:
    """Print on stdout what a training would do."""
    data = [("data", str(portion)) for portion in found.portions]
    print_facts(
        f"{found.name}: checked, nothing written",
        [
            *data,
            ("pixel size", "as it is" if found.mpp is None else f"{found.mpp:.4g} µm/px"),
            ("network", f"{found.parameters / 1e6:.2f} million parameters"),
            (
                "samples",
                f"{found.iterations} iterations of {found.batch}; the network sees {found.window} "
                f"px a side and learns from the middle {found.tile}",
            ),
            ("runs on", _where(found)),
        ],
    )


def show_training(found: Training) -> None:
    """Print on stdout what came of a training."""
    held_out = found.held_out or {}
    print_facts(
        f"{found.model}: {found.state}",
        [
            ("iterations", str(found.iterations)),
            ("kept", _kept(found)),
            ("held out", _in_words(held_out)),
            *((name, _in_words(scores)) for name, scores in found.sources.items()),
            ("fields", ", ".join(f"{n} {k.replace('_', ' ')}" for k, n in found.fields.items())),
            ("time", f"{duration(found.seconds)}, {percent(found.waited)} of it waiting for data"),
            ("ran on", _where(found)),
        ],
    )


def _kept(found: Training) -> str:
    if found.best_iteration is None:
        return "no network yet: nothing has been measured"
    return f"the network after iteration {found.best_iteration}"


def _in_words(scores: Any) -> str:
    if not scores:
        return ""
    values = {name: float("nan") if v is None else v for name, v in scores.items() if name in SHOWN}
    figures = ", ".join(f"{SHOWN[name]} {score(value)}" for name, value in values.items())
    return f"{figures} ({scores['fields']} images)"


SHOWN = {"dice": "mean Dice", "iou": "mean IoU", "pixel_error": "pixel error"}
"""Scores that are shown, and what they are called."""


def _where(found: TrainingPlan | Training) -> str:
    threads = f", {found.threads} threads" if found.device == "cpu" else ""
    beside = {0: "this process", 1: "one process beside it"}
    makers = beside.get(found.workers, f"{found.workers} processes beside it")
    return f"{found.device} in {found.precision}{threads}; samples are made by {makers}"

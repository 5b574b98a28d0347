"""Train a recipe once per fold and put the figures of the held-out folds together.

    python workflows/training/cross_validate.py RECIPE OUTPUT --data DATA [--folds 0,1] [--set …]

OUTPUT gets a model folder per fold (`fold-0`, …) and, when all are there, `summary.json`. The same
command goes on after an interruption: a fold that has ended is taken as it is. So folds can be
trained side by side, with `--folds` and a share of the cores each (`--threads`: two trainings on a
core each do more than one on two), and put together by the command without them. A model that was
trained on everything has nothing left to be measured on; `--card MODEL` writes the folds' figures
into its card.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import wsi_unet
from wsi_unet.models.saving import write_card
from wsi_unet.models.inference.devices import keep_freed_memory
from wsi_unet.training.artifacts.folder import TrainingFolder
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_file import read_recipe


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--folds", help="Which, like 0,1; all by default.")
@click.option("--threads", type=click.IntRange(min=1), help="As of train.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="As of train.")
@click.option(
    "--card",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A model by the same recipe, whose card is to get the figures.",
)
def main(
    recipe: Path,
    output: Path,
    data: Path | None,
    folds: str | None,
    threads: int | None,
    settings: tuple[str, ...],
    card: Path | None,
) -> None:
    """See the module's text."""
    if card is not None and folds is not None:
        raise click.UsageError("A card gets the figures of all folds: leave --folds out.")
    keep_freed_memory()  # as the command does
    count = read_recipe(recipe, settings).split.folds
    chosen = range(count) if folds is None else [int(fold) for fold in folds.split(",")]
    reports = []
    for fold in chosen:
        reports.append(
            trained(
                recipe, output / f"fold-{fold}", data, (*settings, f"split.fold={fold}"), threads
            )
        )
        click.echo(f"fold {fold}: {said(reports[-1])}", err=True)
    if folds is not None:  # the means are of all
        return
    summary = {
        "recipe": recipe.name,
        "settings": list(settings),
        "mean": mean_of_all([report["held_out"] for report in reports]),
        "mean of sources": mean_of_all([report["sources"] for report in reports]),
        "folds": reports,
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    if card is not None:
        write_figures(card, summary)
    click.echo(json.dumps({key: summary[key] for key in ("mean", "mean of sources")}, indent=2))


def trained(
    recipe: Path, model: Path, data: Path | None, settings: tuple[str, ...], threads: int | None
) -> Any:
    """Return the report of a fold, which is trained, or gone on with, unless it has ended."""
    folder, wanted = TrainingFolder(model), read_recipe(recipe, settings)
    if folder.report.exists():
        if what_is_learnt(read_recipe(folder.recipe)) != what_is_learnt(wanted):
            raise click.ClickException(
                f"{model} was trained by another recipe; choose another OUTPUT, or remove it"
            )
    else:
        started = folder.own.exists()
        done = wsi_unet.train(
            wanted, model, data=data or recipe.parent, resume=started, threads=threads
        )
        if done.state == "interrupted":
            raise click.ClickException("interrupted; the same command goes on")
    return json.loads(folder.report.read_text(encoding="utf-8"))


def what_is_learnt(recipe: Recipe) -> Recipe:
    """Return a recipe without what is only told."""
    return recipe.model_copy(update={"description": "", "license": ""})


def write_figures(model: Path, summary: dict[str, Any]) -> None:
    """Write means over folds into the card of a model that is trained by the same recipe."""
    metrics = {
        "how": f"means over {len(summary['folds'])} networks of the same recipe but for "
        f"{', '.join(summary['settings']) or 'the fold'}; each was measured on what it wasn't "
        "trained on: a fold, and sources that none of them was trained on",
        "held_out": summary["mean"],
        "sources": summary["mean of sources"],
    }
    spec = wsi_unet.load_model(model).spec
    write_card(model, spec.model_copy(update={"metrics": metrics}))


def said(report: Any) -> str:
    """Return a fold's figures in a line."""
    held_out = report["held_out"]
    if held_out is None or held_out["dice"] is None:
        return f"nothing to measure, {report['iterations']} iterations, {report['seconds']:.0f} s"
    return (
        f"Dice {held_out['dice']:.4f}, pixel error {held_out['pixel_error']:.4f}, "
        f"{report['iterations']} iterations, {report['seconds']:.0f} s"
    )


def mean_of_all(documents: list[Any]) -> Any:
    """Return the means of the numbers in documents of one shape, to four digits.

    What isn't known in one of them, such as the Dice of a class that is nowhere in it, is None.
    """
    if None in documents:
        return None
    if isinstance(documents[0], dict):
        return {key: mean_of_all([one[key] for one in documents]) for key in documents[0]}
    return round(sum(documents) / len(documents), 4)


if __name__ == "__main__":
    main()

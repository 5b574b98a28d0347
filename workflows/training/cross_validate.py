"""Train a recipe once per fold, and average the scores of the held-out folds.

    python workflows/training/cross_validate.py RECIPE OUTPUT --data DATA [--folds 0,1] [--set …]

OUTPUT gets a model folder per fold (`fold-0`, …) and, when all folds are trained, `summary.json`.
After an interruption the same command continues; folds that have ended aren't trained again. So
folds can be trained in parallel, with `--folds` and a share of the cores each (`--threads`: two
trainings on one core each are faster than one after the other on two), and then be averaged by the
command without these options. A model that was trained on all data can't be measured itself;
`--card MODEL` writes the folds' scores into its card.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import wsi_unet
from wsi_unet.models.inference.devices import keep_freed_memory
from wsi_unet.models.saving import write_spec
from wsi_unet.training.artifacts.folder import TrainingFolder
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_file import read_recipe


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--folds", help="Folds to train, like 0,1.  [default: all]")
@click.option("--threads", type=click.IntRange(min=1), help="Same as for `wsi-unet train`.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Same as for `wsi-unet train`."
)
@click.option(
    "--card",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A model trained by the same recipe, into whose card the scores are written.",
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
    """Train the folds that haven't ended, and write the summary (see the module's docstring)."""
    if card is not None and folds is not None:
        raise click.UsageError("--card needs the scores of all folds: leave out --folds.")
    keep_freed_memory()  # as the command does
    count = read_recipe(recipe, settings).split.folds
    chosen = range(count) if folds is None else [int(fold) for fold in folds.split(",")]
    reports = []
    for fold in chosen:
        model, changes = output / f"fold-{fold}", (*settings, f"split.fold={fold}")
        reports.append(train_fold(recipe, model, data, changes, threads))
        click.echo(f"fold {fold}: {describe_report(reports[-1])}", err=True)
    if folds is not None:  # the means are those of all folds
        return
    summary = {
        "recipe": recipe.name,
        "settings": list(settings),
        "mean": average([report["held_out"] for report in reports]),
        "mean of sources": average([report["sources"] for report in reports]),
        "folds": reports,
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    if card is not None:
        write_scores(card, summary)
    click.echo(json.dumps({key: summary[key] for key in ("mean", "mean of sources")}, indent=2))


def train_fold(
    recipe: Path, model: Path, data: Path | None, settings: tuple[str, ...], threads: int | None
) -> Any:
    """Return the report of a fold; it is trained, or resumed, unless it has ended."""
    folder, wanted = TrainingFolder(model), read_recipe(recipe, settings)
    if folder.report.exists():
        if without_texts(read_recipe(folder.recipe)) != without_texts(wanted):
            raise click.ClickException(
                f"{model} was trained by another recipe; choose another OUTPUT, or remove it"
            )
    else:
        started = folder.own.exists()
        result = wsi_unet.train(
            wanted, model, data=data or recipe.parent, resume=started, threads=threads
        )
        if result.state == "interrupted":
            raise click.ClickException("interrupted; the same command continues")
    return json.loads(folder.report.read_text(encoding="utf-8"))


def without_texts(recipe: Recipe) -> Recipe:
    """Return a recipe without the texts that don't influence the weights."""
    return recipe.model_copy(update={"description": "", "license": ""})


def write_scores(model: Path, summary: dict[str, Any]) -> None:
    """Write means over folds into the card of a model that is trained by the same recipe."""
    metrics = {
        "how": f"means over {len(summary['folds'])} networks of the same recipe but for "
        f"{', '.join(summary['settings']) or 'the fold'}; each was measured on data that it wasn't "
        "trained on: a fold, and sources that none of them was trained on",
        "held_out": summary["mean"],
        "sources": summary["mean of sources"],
    }
    spec = wsi_unet.load_model(model).spec
    write_spec(model, spec.model_copy(update={"metrics": metrics}))


def describe_report(report: Any) -> str:
    """Return a fold's scores in a line."""
    held_out = report["held_out"]
    if held_out is None or held_out["dice"] is None:
        return f"nothing measured, {report['iterations']} iterations, {report['seconds']:.0f} s"
    return (
        f"Dice {held_out['dice']:.4f}, pixel error {held_out['pixel_error']:.4f}, "
        f"{report['iterations']} iterations, {report['seconds']:.0f} s"
    )


def average(documents: list[Any]) -> Any:
    """Return the means of the numbers in documents with the same keys, to four digits.

    A number that is None in one of them, like the Dice of a class without pixels, is None.
    """
    if None in documents:
        return None
    if isinstance(documents[0], dict):
        return {key: average([document[key] for document in documents]) for key in documents[0]}
    return round(sum(documents) / len(documents), 4)


if __name__ == "__main__":
    main()

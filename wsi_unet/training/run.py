"""`wsi_unet.train`: from a recipe to a model, begun or gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from wsi_unet.errors import OptionError, OutputError, first_line
from wsi_unet.logs import event, warn
from wsi_unet.models.checkpoint import load_model, write_card
from wsi_unet.models.destination import writing
from wsi_unet.models.inference.devices import cpu_threads, full_float32
from wsi_unet.models.spec import Normalisation
from wsi_unet.training.artifacts.card import (
    describe_data,
    describe_environment,
    describe_model,
    digest_of,
)
from wsi_unet.training.artifacts.folder import TrainingFolder
from wsi_unet.training.artifacts.journal import check_board, writing_journal
from wsi_unet.training.artifacts.pictures import NO_MATPLOTLIB, can_draw_curves
from wsi_unet.training.artifacts.state import State, TrainingStatus, check_same, read_state
from wsi_unet.training.augmentation.normalisation import choose_normalisation
from wsi_unet.training.augmentation.samples import Samples
from wsi_unet.training.dataset import FieldSplit, open_fields, split_fields
from wsi_unet.training.loop.learner import Learner
from wsi_unet.training.loop.losses import Loss, build_loss
from wsi_unet.training.loop.trainer import Trainer, TrainingJob, journal_columns
from wsi_unet.training.loop.validation import FieldLabeller
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_file import read_recipe, write_recipe
from wsi_unet.training.report import Training, TrainingProgress
from wsi_unet.training.runtime import Interruption, TrainingRuntime, choose_runtime


def train(
    recipe: Recipe | str | Path,
    output: str | Path,
    *,
    data: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    workers: int | None = None,
    threads: int | None = None,
    tensorboard: bool = False,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    interruption: Interruption | None = None,
) -> Training:
    """Train a network as a recipe says, and write it as a model.

    `output` holds the best network so far at any time; what goes on with it is in its folder
    `training`. On a CPU in float32 the same recipe, data, number of threads and versions give the
    same weights to the last bit, however often the training was interrupted. Samples are made by
    other processes, so a script calls this below `if __name__ == "__main__":`.

    Args:
        recipe: what to do, or the path of a TOML file that says it.
        output: folder of the model.
        data: folder that the recipe's data lie in; None: the recipe's, or the current one.
        resume: go on with the training in `output`, if one was begun.
        overwrite: replace the model, and the training, in `output`.
        device: "auto", "cpu", "cuda" or "cuda:i".
        workers: processes that make samples; None: as suits the device; 0: none.
        threads: cores for the network on a CPU; None: all.
        tensorboard: whether to log for TensorBoard, too.
        on_progress: is told where it stands, after every iteration.
        interruption: whether somebody wants it to end.

    Raises:
        RecipeError: the recipe, or the data that it names, is unusable.
        OptionError: there is no such device, or something isn't installed.
        OutputError: `output` can't be used as it is.
        TrainingError: it can't go on; what was learnt so far is kept.
    """
    if not isinstance(recipe, Recipe):
        data = Path(recipe).parent if data is None else data
        recipe = read_recipe(Path(recipe))
    if resume and overwrite:
        raise OptionError("resume and overwrite contradict each other; give one of them")
    folder = TrainingFolder(Path(output))
    folder.check(resume=resume, overwrite=overwrite)
    setting = choose_runtime(
        recipe,
        device=device,
        workers=workers,
        threads=threads,
        on_progress=on_progress,
        interruption=interruption,
    )
    setting.on_progress(TrainingProgress("opening", iterations=recipe.running.iterations))
    fields = open_fields(recipe, Path(data or "."), processes=setting.workers + 1)
    parts = split_fields(recipe, fields)
    return train_on(recipe, parts, folder, setting, resume=resume, tensorboard=tensorboard)


def train_on(
    recipe: Recipe,
    parts: FieldSplit[Any],
    folder: TrainingFolder,
    setting: TrainingRuntime,
    *,
    resume: bool = False,
    tensorboard: bool = False,
) -> Training:
    """Train on fields; see `train`. What is in the folder is replaced, unless it is gone on with.

    Raises:
        RecipeError: the recipe doesn't fit the fields, or describes no model.
        OptionError: something isn't installed.
        OutputError: the folder can't be used as it is.
        TrainingError: it can't go on; what was learnt so far is kept.
    """
    if tensorboard:
        check_board()
    with folder.locked() as lock, _torch_set_up(setting):
        data = digest_of(parts)
        state = _stored(folder, recipe, data) if resume and folder.state.exists() else None
        scaling = _scaling_of(state) or choose_normalisation(recipe, parts.training)
        task = TrainingJob(
            recipe=recipe,
            samples=Samples(recipe, parts.training, scaling),
            parts=parts,
            data=data,
            folder=folder,
            lock=lock,
            spec=describe_model(recipe, scaling, describe_data(recipe, parts)),
            setting=setting,
            circumstances=_circumstances(setting, state),
        )
        learner = Learner(
            recipe, losses_of(recipe), device=setting.device, precision=setting.precision
        )
        if state is not None:
            _restore(learner, state, folder.state)
        with writing(folder.recipe):
            if state is None:
                folder.clear()
            folder.report.unlink(missing_ok=True)
            write_recipe(recipe, folder.recipe)
        with writing_journal(
            folder.journal,
            journal_columns(recipe),
            0 if state is None else state.journal,
            folder.board if tensorboard else None,
            learner.iteration,
        ) as journal:
            standing = TrainingStatus() if state is None else state.standing
            return _carry_out(task, Trainer(task, learner, journal, standing))


def losses_of(recipe: Recipe) -> list[Loss]:
    """Return each term of a recipe's loss, its factor included."""
    return [build_loss((term,), recipe.background_index, recipe.head) for term in recipe.loss]


def _carry_out(task: TrainingJob, course: Trainer) -> Training:
    """Train, measure what is measured at the end, and complete the card."""
    parts, folder, setting = task.parts, task.folder, task.setting
    if not can_draw_curves():
        warn(NO_MATPLOTLIB)
    counts = {
        "trained_on": len(parts.training),
        "held_out": len(parts.validation),
        "apart": sum(map(len, parts.hold_out.values())),
    }
    event("training", model=str(folder.model), **counts)
    ended, sources = course.run(), {}
    if ended != "interrupted":
        try:
            course.tell("finishing")
            sources = _measure_apart(task)
        except KeyboardInterrupt:
            ended = "interrupted"
    best, seconds = course.standing.best, course.standing.seconds
    if best is not None:
        with setting.interruption.held():
            write_card(folder.model, course.card(ended, sources))
    event("training ended", model=str(folder.model), state=ended, iterations=course.iteration)
    found = Training(
        state=ended,
        model=folder.model,
        iterations=course.iteration,
        best_iteration=None if best is None else best.iteration,
        held_out=None if best is None else best.scores,
        sources=sources,
        fields=counts,
        seconds=seconds,
        waited=course.waited,
        device=setting.device,
        precision=setting.precision,
        threads=setting.threads,
        workers=setting.workers,
    )
    if ended != "interrupted":
        folder.put_report(json.dumps(found.to_json(), indent=2))
    return found


def _measure_apart(task: TrainingJob) -> dict[str, JsonValue]:
    """Return the scores of the network that is kept on each source held out as a whole."""
    if not task.parts.hold_out:
        return {}
    labeller = FieldLabeller(
        load_model(task.folder.model),
        device=task.setting.device,
        precision=task.setting.precision,
        threads=task.setting.threads,
    )
    return {
        task.recipe.data[number].images: labeller.measure(
            fields, task.recipe.running.validate_tiles
        ).to_json()
        for number, fields in task.parts.hold_out.items()
    }


@contextmanager
def _torch_set_up(setting: TrainingRuntime) -> Iterator[None]:
    """Let torch compute as the setting says inside, and be as it was afterwards."""
    devices = [] if setting.device == "cpu" else [torch.device(setting.device)]
    with (
        torch.random.fork_rng(devices=devices),
        cpu_threads(setting.threads),
        full_float32(),
    ):
        yield


def _stored(folder: TrainingFolder, recipe: Recipe, data: str) -> State:
    state = read_state(folder.state)
    check_same(state, recipe, data, folder.model)
    return state


def _scaling_of(state: State | None) -> Normalisation | None:
    return None if state is None else Normalisation(mean=state.scaling[0], std=state.scaling[1])


def _restore(learner: Learner, state: State, path: Path) -> None:
    try:
        learner.restore(state.learner)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise OutputError(
            f"{path} doesn't fit the recipe's network ({first_line(error)}); begin anew with "
            "--overwrite"
        ) from error


def _circumstances(setting: TrainingRuntime, state: State | None) -> dict[str, JsonValue]:
    """Return what the last bits depend on beside the recipe; warn if it isn't what it was."""
    now = {
        **describe_environment(setting.device),
        "threads": setting.threads,
        "precision": setting.precision,
    }
    for name, value in now.items():
        then = None if state is None else state.circumstances.get(name)
        if then not in (None, value):
            warn(f"the training goes on with {name} {value}, not {then}, so not with the same bits")
    return now

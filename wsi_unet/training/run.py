"""`wsi_unet.train`: from a recipe to a model, started or resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Unpack

import torch
from pydantic import JsonValue

from wsi_unet.errors import OptionError, OutputError, first_line
from wsi_unet.logs import event, warn
from wsi_unet.models.destination import writing
from wsi_unet.models.inference.devices import cpu_threads, full_float32
from wsi_unet.models.model import load_model
from wsi_unet.models.saving import write_spec
from wsi_unet.signals import interruptions_held
from wsi_unet.training.artifacts.appearance import measure_appearance_range
from wsi_unet.training.artifacts.card import (
    describe_data,
    describe_environment,
    describe_model,
    hash_data,
)
from wsi_unet.training.artifacts.folder import TrainingFolder
from wsi_unet.training.artifacts.journal import check_tensorboard, writing_journal
from wsi_unet.training.artifacts.pictures import NO_MATPLOTLIB, can_draw_curves
from wsi_unet.training.artifacts.state import TrainingState, TrainingStatus, check_same, read_state
from wsi_unet.training.augmentation.normalisation import choose_normalisation
from wsi_unet.training.augmentation.samples import Samples
from wsi_unet.training.dataset import FieldSplit, open_fields, split_fields
from wsi_unet.training.loop.job import TrainingJob
from wsi_unet.training.loop.learner import Learner
from wsi_unet.training.loop.losses import Loss, build_loss
from wsi_unet.training.loop.trainer import Trainer, journal_columns
from wsi_unet.training.loop.validation import FieldLabeller
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_file import local_path, resolve_recipe, write_recipe
from wsi_unet.training.report import Ended, Training, TrainingProgress
from wsi_unet.training.runtime import RuntimeOptions, TrainingRuntime, choose_runtime


def train(
    recipe: Recipe | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    **runtime: Unpack[RuntimeOptions],
) -> Training:
    """Train a network as a recipe says, and write it as a model.

    `output` holds the best network so far at any time; what is needed to resume is in its folder
    `training`. On a CPU in float32, the same recipe, data, number of threads and versions give the
    same weights to the last bit, however often the training was interrupted. Samples are made by
    other processes, so a script must call this below `if __name__ == "__main__":`.

    Ctrl-C, or KeyboardInterrupt raised in `on_progress`, ends the training after the current
    iteration, with everything saved and the state "interrupted". It is raised again if it comes
    while data are opened, or, once the last files have been written, if it comes while they are.

    Args:
        recipe: a recipe, or the path of a TOML file.
        output: folder of the model.
        data: folder that paths in the recipe are relative to; None: the recipe's folder, or the
            current one.
        resume: continue the training in `output`, if there is one.
        overwrite: replace the model, and the training, in `output`.
        tensorboard: also write logs for TensorBoard.
        on_progress: called with the progress after every iteration.
        **runtime: where it runs: `device`, `workers` and `threads`; see `RuntimeOptions`.

    Raises:
        RecipeError: the recipe, or the data that it names, is unusable.
        OptionError: there is no such device, or something isn't installed.
        OutputError: `output` can't be used as it is.
        TrainingError: the training can't continue; what was learnt so far is kept.
    """
    recipe, data_folder = resolve_recipe(recipe, data)
    if resume and overwrite:
        raise OptionError("`resume` and `overwrite` contradict each other; give one of them")
    folder = TrainingFolder(local_path(output, "output"))
    folder.check(resume=resume, overwrite=overwrite)
    chosen = choose_runtime(recipe, on_progress=on_progress, **runtime)
    chosen.on_progress(TrainingProgress("opening", iterations=recipe.running.iterations))
    fields = open_fields(recipe, data_folder, processes=chosen.workers + 1)
    split = split_fields(recipe, fields)
    return train_on(recipe, split, folder, chosen, resume=resume, tensorboard=tensorboard)


def train_on(
    recipe: Recipe,
    split: FieldSplit[Any],
    folder: TrainingFolder,
    runtime: TrainingRuntime,
    *,
    resume: bool = False,
    tensorboard: bool = False,
) -> Training:
    """Train on fields; see `train`. Unless resumed, what is in the folder is replaced.

    Raises:
        RecipeError: the recipe doesn't fit the fields, or describes no model.
        OptionError: something isn't installed.
        OutputError: the folder can't be used as it is.
        TrainingError: the training can't continue; what was learnt so far is kept.
    """
    if tensorboard:
        check_tensorboard()
    with folder.locked() as lock, _torch_set_up(runtime):
        data = hash_data(split)
        state = _read_own_state(folder, recipe, data) if resume and folder.state.exists() else None
        if state is None:
            normalisation = choose_normalisation(recipe, split.training)
        else:
            normalisation = state.normalisation
        job = TrainingJob(
            recipe=recipe,
            samples=Samples(recipe, split.training, normalisation),
            split=split,
            data=data,
            folder=folder,
            lock=lock,
            spec=describe_model(recipe, normalisation, describe_data(recipe, split)).model_copy(
                update={"appearance": measure_appearance_range(split.training)}
            ),
            runtime=runtime,
            environment=_describe_runtime(runtime, state),
        )
        learner = _make_learner(job, state)
        with writing(folder.recipe):
            if state is None:
                folder.clear()
            folder.report.unlink(missing_ok=True)
            write_recipe(recipe, folder.recipe)
        with writing_journal(
            folder.journal,
            journal_columns(recipe),
            0 if state is None else state.journal,
            folder.tensorboard if tensorboard else None,
            learner.iteration,
        ) as journal:
            status = TrainingStatus() if state is None else state.status
            return _carry_out(job, Trainer(job, learner, journal, status))


def build_losses(recipe: Recipe) -> list[Loss]:
    """Return each term of a recipe's loss, multiplied by its weight."""
    return [build_loss((term,), recipe.background_index, recipe.head) for term in recipe.loss]


def _carry_out(job: TrainingJob, trainer: Trainer) -> Training:
    """Train, score the held-out sources, and write the final card and report."""
    if not can_draw_curves():
        warn(NO_MATPLOTLIB)
    model, counts = str(job.folder.model), _count_fields(job.split)
    event("training", model=model, **counts)
    ended, sources = trainer.run(), {}
    if ended != "interrupted":
        try:
            trainer.report_progress("finishing")
            sources = _score_sources(job)
        except KeyboardInterrupt:
            ended = "interrupted"
    result = _summarise(job, trainer, ended, sources, counts)
    with interruptions_held():  # so that the card and the report say the same
        if trainer.status.best is not None:
            write_spec(job.folder.model, trainer.describe_network(ended, sources))
        event("training ended", model=model, state=ended, iterations=trainer.iteration)
        if ended != "interrupted":
            job.folder.put_report(json.dumps(result.to_json(), indent=2))
    return result


def _count_fields(split: FieldSplit[Any]) -> dict[str, int]:
    return {
        "trained_on": len(split.training),
        "held_out": len(split.validation),
        "apart": sum(map(len, split.hold_out.values())),
    }


def _score_sources(job: TrainingJob) -> dict[str, JsonValue]:
    """Return the scores of the kept network on each source that is held out as a whole."""
    if not job.split.hold_out:
        return {}
    labeller = FieldLabeller(
        load_model(job.folder.model),
        device=job.runtime.device,
        precision=job.runtime.precision,
        threads=job.runtime.threads,
    )
    return {
        job.recipe.data[number].images: labeller.measure(
            fields, job.recipe.running.validate_tiles
        ).to_json()
        for number, fields in job.split.hold_out.items()
    }


def _summarise(
    job: TrainingJob,
    trainer: Trainer,
    ended: Ended,
    sources: dict[str, JsonValue],
    fields: dict[str, int],
) -> Training:
    best, runtime = trainer.status.best, job.runtime
    return Training(
        state=ended,
        model=job.folder.model,
        iterations=trainer.iteration,
        best_iteration=None if best is None else best.iteration,
        held_out=None if best is None else best.scores,
        sources=sources,
        fields=fields,
        seconds=trainer.status.seconds,
        waited=trainer.waited,
        device=runtime.device,
        precision=runtime.precision,
        threads=runtime.threads,
        workers=runtime.workers,
    )


@contextmanager
def _torch_set_up(runtime: TrainingRuntime) -> Iterator[None]:
    """Set up torch's threads, precision and random numbers inside; restore them afterwards."""
    devices = [] if runtime.device == "cpu" else [torch.device(runtime.device)]
    with (
        torch.random.fork_rng(devices=devices),
        cpu_threads(runtime.threads),
        full_float32(),
    ):
        yield


def _read_own_state(folder: TrainingFolder, recipe: Recipe, data: str) -> TrainingState:
    """Return the state in a folder, checked to be of this recipe and these data."""
    state = read_state(folder.state)
    check_same(state, recipe, data, folder.model)
    return state


def _make_learner(job: TrainingJob, state: TrainingState | None) -> Learner:
    """Return a new learner, or one restored from a state."""
    learner = Learner(
        job.recipe,
        build_losses(job.recipe),
        device=job.runtime.device,
        precision=job.runtime.precision,
    )
    try:
        if state is not None:
            learner.restore(state.learner)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise OutputError(
            f"{job.folder.state} doesn't fit the recipe's network ({first_line(error)}); "
            "`overwrite=True` starts over"
        ) from error
    return learner


def _describe_runtime(
    runtime: TrainingRuntime, state: TrainingState | None
) -> dict[str, JsonValue]:
    """Return what the exact bits depend on besides the recipe; warn of changes since the state."""
    now: dict[str, JsonValue] = {
        **describe_environment(runtime.device),
        "threads": runtime.threads,
        "precision": runtime.precision,
    }
    for name, value in now.items():
        before = None if state is None else state.environment.get(name)
        if before not in (None, value):
            warn(f"resuming with {name} {value} instead of {before}, so the last bits may differ")
    return now

"""The saved state of a training: everything that the next iterations depend on, in one file.

The file is written atomically, and read without running any code that it might hold.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from wsi_unet.atomic_files import replace_file
from wsi_unet.errors import OutputError, SignatureError
from wsi_unet.models.spec import Normalisation
from wsi_unet.regular_files import read_regular
from wsi_unet.training.recipe import Recipe
from wsi_unet.wording import count, plain

MAY_DIFFER = ("running", "iterations")
"""The key of a recipe that may change when a training is resumed."""

_MAGIC = b"wsi-unet training 1\n"
"""First bytes of the file; the SHA-256 of the rest follows."""


@dataclass(frozen=True)
class BestNetwork:
    """The network that is kept.

    Attributes:
        iteration: iteration that its weights are from.
        dice: its mean Dice on the held-out fold; None if nothing was measured.
        scores: its scores on the held-out fold, as in the model card.
    """

    iteration: int
    dice: float | None
    scores: dict[str, JsonValue] | None


@dataclass
class TrainingStatus:
    """Progress of a training, apart from what its network has learnt.

    Attributes:
        measured: iteration at which the held-out fold was measured last.
        best: the network that is kept.
        top: largest mean Dice so far; None before any measurement.
        waiting: measurements since the largest mean Dice.
        row: journal row of the last iteration, if it isn't written yet because the iteration's
            measurement is still missing.
        seconds: time spent, in all runs together.
        seconds_waited: time of that spent waiting for samples.
    """

    measured: int = 0
    best: BestNetwork | None = None
    top: float | None = None
    waiting: int = 0
    row: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_waited: float = 0.0

    def record_measurement(self, dice: float | None, *, by_dice: bool) -> bool:
        """Record a measurement; return whether the measured network is to be kept.

        Args:
            dice: its mean Dice; None if it can't be computed.
            by_dice: whether the best network is kept, rather than the last.
        """
        better = dice is not None and (self.top is None or dice > self.top)
        if better:
            self.top = dice
        self.waiting = 0 if better else self.waiting + 1
        return better or not by_dice or self.best is None


@dataclass(frozen=True)
class TrainingState:
    """A training after some iterations.

    Attributes:
        recipe: the recipe as JSON.
        data: hash of what is trained on and measured.
        normalisation: mean and deviation of each channel.
        environment: what else the exact bits depend on: versions, threads, number type.
        learner: the network, its optimiser and its averaged weights.
        status: progress.
        journal: length of the journal up to this state, bytes.
    """

    recipe: dict[str, JsonValue]
    data: str
    normalisation: Normalisation
    environment: dict[str, JsonValue]
    learner: Mapping[str, Any] = field(repr=False)
    status: TrainingStatus
    journal: int

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return int(self.learner["iteration"])


def write_state(state: TrainingState, path: Path) -> None:
    """Replace the state on disk, atomically.

    Raises:
        OutputError: if it can't be written; the previous state stays.
    """
    content = io.BytesIO()
    torch.save(_to_document(state), content)
    data = content.getbuffer()
    replace_file(path, _MAGIC + hashlib.sha256(data).digest(), data)


def read_state(path: Path) -> TrainingState:
    """Read a state.

    Raises:
        OutputError: if it can't be read, or is damaged.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise OutputError(f"can't read {path}: {error.strerror or error}") from error
    head, data = content[: len(_MAGIC) + 32], memoryview(content)[len(_MAGIC) + 32 :]
    if head != _MAGIC + hashlib.sha256(data).digest():
        raise _damaged(path)
    try:
        return _from_document(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except Exception as error:  # of any type: the file may be a stranger's
        raise _damaged(path) from error


def _to_document(state: TrainingState) -> dict[str, Any]:
    """Return the file's content; its keys are the format's, not the attributes' names."""
    return {
        "recipe": state.recipe,
        "data": state.data,
        "scaling": (state.normalisation.mean, state.normalisation.std),
        "circumstances": state.environment,
        "learner": state.learner,
        "standing": asdict(state.status),
        "journal": state.journal,
    }


def _from_document(document: dict[str, Any]) -> TrainingState:
    status, (mean, std) = dict(document["standing"]), document["scaling"]
    best = status.pop("best")
    return TrainingState(
        recipe=document["recipe"],
        data=document["data"],
        normalisation=Normalisation(mean=mean, std=std),
        environment=document["circumstances"],
        learner=document["learner"],
        status=TrainingStatus(best=None if best is None else BestNetwork(**best), **status),
        journal=document["journal"],
    )


def _damaged(path: Path) -> OutputError:
    return OutputError(
        f"{path} is damaged, or written by another version of wsi-unet, so the training can't be "
        "resumed; the model beside it can still be used, and `overwrite=True` starts over"
    )


def check_same(state: TrainingState, recipe: Recipe, data: str, path: Path) -> None:
    """Refuse to resume with another recipe, or with other data.

    Args:
        state: the saved state.
        recipe: the recipe to resume with.
        data: hash of the data to resume with.
        path: path of the model, for messages.

    Raises:
        SignatureError: naming what differs.
    """
    now = recipe.model_dump(mode="json")
    for key, (before, after) in _differences(state.recipe, now):
        if key != MAY_DIFFER:
            raise SignatureError(
                f"{path} was trained with another recipe: {'.'.join(key)} was {plain(before)} and "
                f"is {plain(after)}; only {'.'.join(MAY_DIFFER)} may be raised. Use that recipe, "
                "choose another `output`, or give `overwrite=True`"
            )
    if recipe.running.iterations < state.iteration:
        raise SignatureError(
            f"{path} has been trained for {count(state.iteration, 'iteration')} already, which is "
            f"more than the recipe's {recipe.running.iterations}; raise running.iterations"
        )
    if data != state.data:
        raise SignatureError(
            f"{path} was trained on other data: other images or slides, in another order, or of "
            "another size; use the same data, or give `overwrite=True`"
        )


def _differences(
    then: Any, now: Any, keys: tuple[str, ...] = ()
) -> Sequence[tuple[tuple[str, ...], tuple[Any, Any]]]:
    """Return the keys under which two documents differ, each with its two values."""
    if isinstance(then, dict) and isinstance(now, dict):
        return [
            difference
            for key in sorted({*then, *now})
            for difference in _differences(then.get(key), now.get(key), (*keys, key))
        ]
    return [] if then == now else [(keys, (then, now))]

"""A training on disk: everything that the next iterations depend on, in one file.

Written whole or not at all, and read without running anything that it might hold.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from wsi_unet.errors import OutputError, SignatureError
from wsi_unet.training.recipe import Recipe

MAY_DIFFER = ("running", "iterations")
"""What a recipe may say otherwise when a training goes on."""

_MAGIC = b"wsi-unet training 1\n"
"""What a state begins with; its SHA-256 follows."""


@dataclass(frozen=True)
class BestNetwork:
    """The network that is kept.

    Attributes:
        iteration: after so many.
        dice: its mean Dice; None where nothing was measured.
        scores: of the held-out fold, as the card has them.
    """

    iteration: int
    dice: float | None
    scores: dict[str, JsonValue] | None


@dataclass
class TrainingStatus:
    """How far a training is, beside what its network has learnt.

    Attributes:
        measured: the iteration after which the held-out fold was measured last.
        best: the network that is kept.
        top: the largest mean Dice so far; None before any.
        waiting: measurements since, without a larger one.
        row: of the journal for the last iteration, if it isn't written since its measurement is
            still to come.
        seconds: how long it has taken.
        seconds_waited: how long of that for samples.
    """

    measured: int = 0
    best: BestNetwork | None = None
    top: float | None = None
    waiting: int = 0
    row: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_waited: float = 0.0

    def judge(self, dice: float | None, *, by_dice: bool) -> bool:
        """Take a measurement into account; return whether the network is to be kept.

        Args:
            dice: the mean Dice; None where nothing can be told.
            by_dice: whether the best is kept, not the last.
        """
        better = dice is not None and (self.top is None or dice > self.top)
        if better:
            self.top = dice
        self.waiting = 0 if better else self.waiting + 1
        return better or not by_dice or self.best is None


@dataclass(frozen=True)
class State:
    """A training after some iterations.

    Attributes:
        recipe: as JSON.
        data: digest of what is trained on and measured.
        scaling: mean and deviation of each channel.
        circumstances: what else the last bits depend on: versions, threads, number type.
        learner: the network, its optimiser and mean.
        standing: how far it is.
        journal: bytes of the journal that belong to it.
    """

    recipe: dict[str, JsonValue]
    data: str
    scaling: tuple[tuple[float, ...], tuple[float, ...]]
    circumstances: dict[str, JsonValue]
    learner: Mapping[str, Any] = field(repr=False)
    standing: TrainingStatus
    journal: int

    @property
    def iteration(self) -> int:
        """How many iterations there were."""
        return int(self.learner["iteration"])


def write_state(state: State, path: Path) -> None:
    """Replace the state on disk, at one blow.

    Raises:
        OutputError: if it can't be written; the last one stays.
    """
    content = io.BytesIO()
    torch.save({**vars(state), "standing": asdict(state.standing)}, content)
    data = content.getbuffer()
    new = path.with_name(f".{path.name}.partial")
    try:
        with new.open("wb") as file:
            file.write(_MAGIC + hashlib.sha256(data).digest())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)  # of a full disk it may have taken the rest
        raise OutputError(f"can't write {path}: {error.strerror or error}") from error


def read_state(path: Path) -> State:
    """Read a state.

    Raises:
        OutputError: if it can't be read, or is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OutputError(f"can't read {path}: {error.strerror or error}") from error
    head, data = content[: len(_MAGIC) + 32], memoryview(content)[len(_MAGIC) + 32 :]
    if head != _MAGIC + hashlib.sha256(data).digest():
        raise _damaged(path)
    try:
        document = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        standing = document.pop("standing")
        best = standing.pop("best")
        found = TrainingStatus(best=None if best is None else BestNetwork(**best), **standing)
        return State(standing=found, **document)
    except Exception as error:  # of whatever type: somebody else's file, PyTorch's loader
        raise _damaged(path) from error


def _damaged(path: Path) -> OutputError:
    return OutputError(
        f"{path} is damaged, or of another version of wsi-unet, so the training can't go on; "
        "the model beside it can be used, and --overwrite begins anew"
    )


def check_same(state: State, recipe: Recipe, data: str, path: Path) -> None:
    """Refuse to go on with another recipe, or with other data.

    Args:
        state: of the training.
        recipe: to go on with.
        data: digest of the data to go on with.
        path: of the model, for messages.

    Raises:
        SignatureError: naming what differs.
    """
    now = recipe.model_dump(mode="json")
    for key, (then, new) in _differences(state.recipe, now):
        if key != MAY_DIFFER:
            raise SignatureError(
                f"{path} was begun with another recipe: {'.'.join(key)} was {then!r} and is "
                f"{new!r}; only {'.'.join(MAY_DIFFER)} may be raised. Give that recipe, another "
                "--output, or --overwrite"
            )
    if recipe.running.iterations < state.iteration:
        raise SignatureError(
            f"{path} has been trained for {state.iteration} iterations already, which is more than "
            f"the recipe's {recipe.running.iterations}; give running.iterations more"
        )
    if data != state.data:
        raise SignatureError(
            f"{path} was begun with other data: other images or slides, or in another order, or of "
            "another size; give those again, or --overwrite"
        )


def _differences(
    then: Any, now: Any, place: tuple[str, ...] = ()
) -> Sequence[tuple[tuple[str, ...], tuple[Any, Any]]]:
    """Return where two documents differ, and what each says there."""
    if isinstance(then, dict) and isinstance(now, dict):
        return [
            found
            for key in sorted({*then, *now})
            for found in _differences(then.get(key), now.get(key), (*place, key))
        ]
    return [] if then == now else [(place, (then, now))]

"""Reports of a training: its progress while it runs, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

Phase = Literal["opening", "training", "measuring", "finishing"]
Ended = Literal["finished", "stopped early", "interrupted"]


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training.

    Attributes:
        phase: what the training is doing now.
        iteration: iterations done.
        iterations: iterations in total.
        loss: running mean of the loss; None before the first iteration.
        dice: mean Dice of the held-out fold at the last measurement; None before.
        best_dice: mean Dice of the network that is kept.
        seconds: time spent so far, in all runs together.
        seconds_left: estimated time left; None if it can't be estimated yet.
        waited: share of the time that the network spent waiting for samples.
    """

    phase: Phase
    iteration: int = 0
    iterations: int = 0
    loss: float | None = None
    dice: float | None = None
    best_dice: float | None = None
    seconds: float = 0.0
    seconds_left: float | None = None
    waited: float = 0.0


@dataclass(frozen=True)
class Training:
    """The result of a training.

    Attributes:
        state: how it ended; "stopped early" if there was no progress, "interrupted" if it can be
            resumed.
        model: folder of the model; a model is in it if `best_iteration` isn't None.
        iterations: iterations done.
        best_iteration: iteration that the model's weights are from; None if no network has been
            kept yet.
        held_out: scores of these weights on the held-out fold, as in the model card; None if
            nothing is held out.
        sources: scores on each source that is held out as a whole, by the source's name.
        fields: number of fields trained on, held out, and in sources that are held out.
        seconds: time it took, in all runs together.
        waited: share of the time that the network spent waiting for samples.
        device: device it ran on.
        precision: number type of the convolutions.
        threads: threads of the network, on a CPU.
        workers: processes that made samples.
    """

    state: Ended
    model: Path
    iterations: int
    best_iteration: int | None
    held_out: dict[str, JsonValue] | None
    sources: dict[str, JsonValue]
    fields: Mapping[str, int]
    seconds: float
    waited: float
    device: str
    precision: str
    threads: int
    workers: int

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON document."""
        return {
            **vars(self),
            "model": str(self.model),
            "fields": dict(self.fields),
            "seconds": round(self.seconds, 3),
            "waited": round(self.waited, 4),
        }

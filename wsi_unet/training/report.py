"""What is told of a training: where it stands, and what came of it."""

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
    """Where a training stands.

    Attributes:
        phase: what is going on.
        iteration: how many there were.
        iterations: how many there will be.
        loss: mean over the last iterations; None before the first.
        dice: mean Dice of the held-out fold when it was measured last; None before.
        best_dice: of the network that is kept.
        seconds: since it began, all sittings together.
        seconds_left: about; None if that can't be told yet.
        waited: share of the time in which the network waited for samples.
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
    """What came of a training.

    Attributes:
        state: how it ended; "stopped early" for lack of progress, "interrupted" to be resumed.
        model: the folder of the model; there is one if `best_iteration` isn't None.
        iterations: how many there were.
        best_iteration: after which the model's weights were kept; None before any was.
        held_out: scores of the held-out fold with these weights, as the card has them; None where
            nothing is held out.
        sources: likewise of each source that was held out as a whole, by its name.
        fields: how many are trained on, held out and measured apart.
        seconds: how long it took, all sittings together.
        waited: share of that in which the network waited for samples.
        device: what it ran on.
        precision: number type of the convolutions.
        threads: of the network, on a CPU.
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
        """Return it as a JSON document."""
        return {
            **vars(self),
            "model": str(self.model),
            "fields": dict(self.fields),
            "seconds": round(self.seconds, 3),
            "waited": round(self.waited, 4),
        }

"""Where and with what a training runs, which its recipe leaves open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

from wsi_unet.cores import usable_cores
from wsi_unet.errors import OptionError
from wsi_unet.models.architectures.unet import Precision
from wsi_unet.models.inference.devices import resolve_device, resolve_precision
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.report import TrainingProgress

MOST_WORKERS = 16
"""What is taken by itself at most."""


class Interruption(Protocol):
    """Whether somebody wants the training to end."""

    def check(self) -> None:
        """Raise KeyboardInterrupt if so."""

    def held(self) -> AbstractContextManager[None]:
        """Only remember it inside, for what must not be done by halves."""


class NoInterruption:
    """Nobody does, except by raising KeyboardInterrupt."""

    def check(self) -> None:
        """Do nothing."""

    def held(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()


def _show_nothing(progress: TrainingProgress) -> None:
    return None


class TrainingArguments(TypedDict, total=False):
    """What may be said about a training beside its recipe, data and place; see `train`."""

    resume: bool
    overwrite: bool
    device: str
    workers: int | None
    threads: int | None
    tensorboard: bool


@dataclass(frozen=True)
class TrainingRuntime:
    """Where and with what a training runs.

    Attributes:
        device: "cpu" or "cuda:i".
        precision: number type of the convolutions.
        threads: cores for the network on a CPU.
        workers: processes that make samples; 0: none but this.
        ahead: whether they make them while the network learns, not in turns with it.
        on_progress: is told where it stands, after every iteration.
        interruption: whether somebody wants it to end.
    """

    device: str
    precision: Precision
    threads: int
    workers: int
    ahead: bool
    on_progress: Callable[[TrainingProgress], None] = _show_nothing
    interruption: Interruption = field(default_factory=NoInterruption)


def choose_runtime(
    recipe: Recipe,
    *,
    device: str = "auto",
    workers: int | None = None,
    threads: int | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    interruption: Interruption | None = None,
) -> TrainingRuntime:
    """Return where a training runs, as asked for or as suits the machine.

    On a CPU as many processes make samples as cores are for the network, each at least two of a
    batch; none where that is one process. For a GPU it is all cores but one. It is never more than
    16. They make them ahead where that leaves all cores to the network that it has: see
    docs/performance.md.

    Raises:
        OptionError: if there is no such device, or a number makes no sense.
    """
    for name, number, least in (("workers", workers, 0), ("threads", threads, 1)):
        if number is not None and number < least:
            raise OptionError(f"{name}: {number}; at least {least}")
    place, cores = resolve_device(device), usable_cores()
    threads = cores if threads is None else threads
    if workers is None and place == "cpu":
        shared = min(threads, recipe.sampling.batch // 2, MOST_WORKERS)
        workers = shared if shared > 1 else 0
    elif workers is None:
        workers = max(1, min(MOST_WORKERS, cores - 1))
    return TrainingRuntime(
        device=place,
        precision=resolve_precision(recipe.running.precision, place),
        threads=threads,
        workers=workers,
        ahead=workers > 0 and (place != "cpu" or threads + workers <= cores),
        on_progress=on_progress or _show_nothing,
        interruption=interruption or NoInterruption(),
    )

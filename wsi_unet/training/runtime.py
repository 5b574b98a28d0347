"""Where and with what a training runs: the choices that its recipe leaves open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, Unpack

from wsi_unet.cores import usable_cores
from wsi_unet.errors import OptionError
from wsi_unet.models.inference.devices import resolve_device, resolve_precision
from wsi_unet.models.number_types import Precision
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.report import TrainingProgress

MOST_WORKERS = 16
"""Most processes that are chosen by default."""


def _show_nothing(progress: TrainingProgress) -> None:
    return None


class RuntimeOptions(TypedDict, total=False):
    """Options that say where a training runs.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:i".
        workers: processes that make samples; 0: this process makes them; None: as suits the
            device.
        threads: CPU cores for the network; None: all.
    """

    device: str
    workers: int | None
    threads: int | None


class TrainingArguments(RuntimeOptions, total=False):
    """All options of `train`, for callers that pass them on.

    Attributes:
        resume: see `train`.
        overwrite: see `train`.
        tensorboard: see `train`.
    """

    resume: bool
    overwrite: bool
    tensorboard: bool


@dataclass(frozen=True)
class TrainingRuntime:
    """Where and with what a training runs.

    Attributes:
        device: "cpu" or "cuda:i".
        precision: number type of the convolutions.
        threads: CPU cores for the network.
        workers: processes that make samples; 0: this process makes them.
        ahead: whether they make samples while the network learns, rather than in turns with it.
        on_progress: called with the progress after every iteration; may raise KeyboardInterrupt.
    """

    device: str
    precision: Precision
    threads: int
    workers: int
    ahead: bool
    on_progress: Callable[[TrainingProgress], None] = _show_nothing


def choose_runtime(
    recipe: Recipe,
    *,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    **options: Unpack[RuntimeOptions],
) -> TrainingRuntime:
    """Return where a training runs: as the options say, and as suits the machine.

    On a CPU, by default as many processes make samples as the network has cores, each at least two
    samples of a batch; none if that is one process. For a GPU it is all cores but one. By default
    there are 16 at most. They work ahead of the network if that leaves it all of its cores: see
    docs/explanation/performance.md.

    Raises:
        OptionError: there is no such device, or a number is too small.
    """
    workers, threads = options.get("workers"), options.get("threads")
    for name, number, least in (("workers", workers, 0), ("threads", threads, 1)):
        if number is not None and number < least:
            raise OptionError(f"`{name}` is {number}, but must be at least {least}", option=name)
    device, cores = resolve_device(options.get("device", "auto")), usable_cores()
    threads = cores if threads is None else threads
    if workers is None and device == "cpu":
        shared = min(threads, recipe.sampling.batch // 2, MOST_WORKERS)
        workers = shared if shared > 1 else 0
    elif workers is None:
        workers = max(1, min(MOST_WORKERS, cores - 1))
    return TrainingRuntime(
        device=device,
        precision=resolve_precision(recipe.running.precision, device),
        threads=threads,
        workers=workers,
        ahead=workers > 0 and (device != "cpu" or threads + workers <= cores),
        on_progress=on_progress or _show_nothing,
    )

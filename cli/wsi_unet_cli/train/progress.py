"""The progress display of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_unet.wording import count
from wsi_unet_cli.common.output import duration
from wsi_unet_cli.common.progress import Snapshot

if TYPE_CHECKING:
    from wsi_unet.training.report import TrainingProgress

SECONDS_BETWEEN_LINES = 30.0

WORTH_SHOWING = 0.15
"""Share of the time spent waiting for samples from which it is shown."""


def describe_training(progress: TrainingProgress) -> Snapshot:
    """Describe how far a training is; plain lines come with each validation, not during it."""
    dice = "" if progress.dice is None else f" {progress.dice:.6f}"
    return Snapshot(
        figures=_figures(progress),
        phase=progress.phase,
        done=progress.iteration,
        total=progress.iterations,
        seconds=progress.seconds,
        state=None if progress.phase == "measuring" else f"{progress.phase}{dice}",
    )


def _figures(progress: TrainingProgress) -> str:
    """Return iterations, loss, Dice and time left, as far as they are known."""
    if not progress.iteration:
        return ""
    words = [f"{progress.iteration}/{count(progress.iterations, 'iteration')}"]
    if progress.loss is not None:
        words.append(f"loss {progress.loss:.3f}")
    if progress.dice is not None:
        best = progress.best_dice
        best_too = "" if best is None or best == progress.dice else f" (best {best:.3f})"
        words.append(f"Dice {progress.dice:.3f}{best_too}")
    if progress.seconds_left:
        words.append(f"{duration(progress.seconds_left)} left")
    if progress.waited > WORTH_SHOWING:
        words.append(f"waits for data {100 * progress.waited:.0f} % of the time")
    return " · ".join(words)

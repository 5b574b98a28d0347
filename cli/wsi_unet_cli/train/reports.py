"""The plan and the result of a training, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsi_unet.wording import count
from wsi_unet_cli.common.output import duration, micrometres, percent, print_facts, score

if TYPE_CHECKING:
    from wsi_unet import Training
    from wsi_unet.training.plan import TrainingPlan

_SCORES = {"dice": "mean Dice", "iou": "mean IoU", "pixel_error": "pixel error"}
"""Names of the scores that are shown."""


def show_training_plan(plan: TrainingPlan) -> None:
    """Print on stdout what a training would do."""
    print_facts(
        f"{plan.name}: checked, nothing written",
        [
            *(("data", str(portion)) for portion in plan.portions),
            ("pixel size", "as it is" if plan.mpp is None else micrometres(plan.mpp)),
            ("network", f"{plan.parameters / 1e6:.2f} million parameters"),
            (
                "samples",
                f"{count(plan.iterations, 'iteration')} of {plan.batch}; the network sees "
                f"{plan.window} px a side and learns from the middle {plan.tile}",
            ),
            ("runs on", _describe_runtime(plan)),
        ],
    )


def show_training(training: Training) -> None:
    """Print on stdout how a training ended."""
    fields = (f"{n} {use.replace('_', ' ')}" for use, n in training.fields.items())
    waited = f"{percent(training.waited)} of it waiting for data"
    print_facts(
        f"{training.model}: {training.state}",
        [
            ("iterations", str(training.iterations)),
            ("kept", _describe_kept(training)),
            ("held out", _describe_scores(training.held_out)),
            *((name, _describe_scores(scores)) for name, scores in training.sources.items()),
            ("fields", ", ".join(fields)),
            ("time", f"{duration(training.seconds)}, {waited}"),
            ("ran on", _describe_runtime(training)),
        ],
    )


def _describe_kept(training: Training) -> str:
    if training.best_iteration is None:
        return "no network yet: nothing has been measured"
    return f"the network after iteration {training.best_iteration}"


def _describe_scores(scores: Any) -> str:
    if not scores:
        return ""
    values = {key: scores[key] for key in _SCORES if key in scores}
    figures = ", ".join(
        f"{_SCORES[key]} {score(float('nan') if value is None else value)}"
        for key, value in values.items()
    )
    return f"{figures} ({count(scores['fields'], 'image')})"


def _describe_runtime(run: TrainingPlan | Training) -> str:
    threads = f", {count(run.threads, 'thread')}" if run.device == "cpu" else ""
    others = count(run.workers, "other process", "other processes")
    makers = others if run.workers else "this process"
    return f"{run.device} in {run.precision}{threads}; samples are made by {makers}"

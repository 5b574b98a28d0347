"""The training loop: iterations, measurements, and the best network saved, until the end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydantic import JsonValue

from wsi_unet.errors import LockedError, WsiUnetError
from wsi_unet.logs import event
from wsi_unet.models.saving import put_model
from wsi_unet.models.spec import ModelSpec
from wsi_unet.signals import interruptions_held
from wsi_unet.training.artifacts.card import complete_card
from wsi_unet.training.artifacts.journal import Journal, read_journal
from wsi_unet.training.artifacts.pictures import (
    can_draw_curves,
    choose_examples,
    draw_curve,
    draw_examples,
)
from wsi_unet.training.artifacts.state import (
    BestNetwork,
    TrainingState,
    TrainingStatus,
    write_state,
)
from wsi_unet.training.loop.batches import BatchStream, making_batches
from wsi_unet.training.loop.job import TrainingJob
from wsi_unet.training.loop.learner import DivergedError, Learner, Step
from wsi_unet.training.loop.scores import Scores, score_columns, score_values
from wsi_unet.training.loop.validation import FieldLabeller, network_as_model
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.report import Ended, Phase, TrainingProgress

RECENT = 50
"""Iterations over which the reported loss is averaged."""


def journal_columns(recipe: Recipe) -> list[str]:
    """Return the names of the journal's columns."""
    return [
        "iteration",
        "seconds",
        "loss",
        *loss_columns(recipe),
        "rate",
        "waited",
        *score_columns([recipe_class.name for recipe_class in recipe.classes]),
    ]


def loss_columns(recipe: Recipe) -> list[str]:
    """Return a name for each term of the loss; repeated kinds of terms are numbered."""
    kinds = [term.name for term in recipe.loss]
    counts = [kinds[: index + 1].count(kind) for index, kind in enumerate(kinds)]
    return [f"{kind} {n}" if n > 1 else kind for kind, n in zip(kinds, counts, strict=True)]


class Trainer:
    """Runs the remaining iterations and measurements of a training.

    Args:
        job: what to do.
        learner: the network and its optimiser.
        journal: table to which iterations are written.
        status: progress so far.

    Attributes:
        status: progress, kept up to date.
    """

    def __init__(
        self, job: TrainingJob, learner: Learner, journal: Journal, status: TrainingStatus
    ) -> None:
        self.status = status
        self._job, self._learner, self._journal = job, learner, journal
        self._running = job.recipe.running
        self._first = learner.iteration
        self._started = self._counted_until = time.monotonic()
        self._loss: float | None = None
        self._dice: float | None = None
        self._consistent = True
        shown = job.split.validation or job.split.training
        self._examples = choose_examples(shown, len(job.recipe.classes), self._running.seed)

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self._learner.iteration

    @property
    def waited(self) -> float:
        """Share of the time that the network spent waiting for samples."""
        return self.status.seconds_waited / max(self.status.seconds, 1e-9)

    def run(self) -> Ended:
        """Train until the end, or until KeyboardInterrupt is raised.

        Raises:
            TrainingError: if the training can't continue.
            SlideError: if a field can't be read.
            OutputError: if the folder can't be written to.
            KeyboardInterrupt: if what was interrupted can't be saved as it is; the last saved state
                stays.
        """
        try:
            with making_batches(
                self._job.samples,
                size=self._job.recipe.sampling.batch,
                iterations=range(self.iteration, self._running.iterations),
                workers=self._job.runtime.workers,
                ahead=self._job.runtime.ahead,
            ) as batches:
                return self._iterate(batches)
        except (DivergedError, LockedError):
            raise
        except WsiUnetError:
            if self._consistent:
                self.save()
            raise
        except KeyboardInterrupt:
            if not self._consistent:
                raise
            with suppress(KeyboardInterrupt):  # a second one asks for what is being done
                self.save()
            return "interrupted"

    def save(self) -> None:
        """Write the state.

        Raises:
            OutputError: if it can't be written.
            LockedError: if another training has taken over the folder.
        """
        job = self._job
        self._check_lock()
        with interruptions_held():
            self._count_time()
            state = TrainingState(
                recipe=job.recipe.model_dump(mode="json"),
                data=job.data,
                normalisation=job.spec.normalisation,
                environment=job.environment,
                learner=self._learner.state(),
                status=self.status,
                journal=self._journal.position,
            )
            self._journal.sync()
            write_state(state, job.folder.state)

    def report_progress(self, phase: Phase) -> None:
        """Call `on_progress` with the current progress."""
        self._count_time()
        left, done = self._running.iterations - self.iteration, self.iteration - self._first
        pace = (time.monotonic() - self._started) / done if done else None
        best = self.status.best
        self._job.runtime.on_progress(
            TrainingProgress(
                phase=phase,
                iteration=self.iteration,
                iterations=self._running.iterations,
                loss=self._loss,
                dice=self._dice,
                best_dice=None if best is None else best.dice,
                seconds=self.status.seconds,
                seconds_left=None if pace is None else pace * left,
                waited=self.waited,
            )
        )

    def describe_network(
        self, state: str, sources: dict[str, JsonValue] | None = None
    ) -> ModelSpec:
        """Return the spec of the kept network, with its measurements.

        Args:
            state: state of the training, for the card.
            sources: scores on the sources that are held out as a whole.
        """
        return complete_card(
            self._job.spec,
            self._job.recipe,
            self.status,
            state=state,
            iterations=self.iteration,
            environment=self._job.environment,
            sources=sources or {},
        )

    def _iterate(self, batches: BatchStream) -> Ended:
        patience = self._running.patience
        while True:
            if self._is_due():
                self._measure()
            self._check_lock()
            if self.iteration >= self._running.iterations:
                return "finished"
            if patience and self._job.split.validation and self.status.waiting >= patience:
                return "stopped early"
            batch = batches.next()
            with self._atomic():
                step = self._learner.learn(batch.to(self._job.runtime.device))
                self._record_step(step, batches.seconds_waited)
                if not self._is_due():
                    self._write_row()
            self.report_progress("training")

    @contextmanager
    def _atomic(self) -> Iterator[None]:
        """Delay interruptions until the block ends; save no state if it fails."""
        with interruptions_held():
            self._consistent = False
            yield
            self._consistent = True

    def _check_lock(self) -> None:
        if self._job.lock.lost:
            raise LockedError(
                f"{self._job.folder.model}: another training has taken it over, or its lock was "
                "removed, while this process was suspended; nothing was written since"
            )

    def _is_due(self) -> bool:
        """Return whether the network is to be measured now."""
        last = self.iteration >= self._running.iterations
        new = self.iteration > self.status.measured
        return new and (last or self.iteration % self._running.validate_every == 0)

    def _count_time(self) -> None:
        """Add the time since the last call to the status."""
        now = time.monotonic()
        self.status.seconds += now - self._counted_until
        self._counted_until = now

    def _record_step(self, step: Step, waited: float) -> None:
        self._count_time()
        self.status.seconds_waited += waited
        past = 0.0 if self._loss is None else 1 - 1 / RECENT
        self._loss = past * (self._loss or 0.0) + (1 - past) * step.loss
        self.status.row = {
            "seconds": self.status.seconds,
            "loss": step.loss,
            **dict(zip(loss_columns(self._job.recipe), step.terms, strict=True)),
            "rate": step.rate,
            "waited": self.waited,
        }

    def _write_row(self) -> None:
        self._journal.add(self.iteration, self.status.row)
        self.status.row = {}

    def _measure(self) -> None:
        """Measure the held-out fold, keep the network if it is the best, and save the state."""
        self._check_lock()
        self.report_progress("measuring")
        job, held_out = self._job, self._job.split.validation
        labeller = FieldLabeller(
            network_as_model(self._learner.network_to_keep, job.spec),
            device=job.runtime.device,
            precision=job.runtime.precision,
            threads=job.runtime.threads,
        )
        scores = labeller.measure(held_out, self._running.validate_tiles) if held_out else None
        examples = labeller.label_whole(self._examples)
        with self._atomic():
            self.status.measured = self.iteration
            if scores is not None:
                names = score_columns([scored.name for scored in scores.classes])
                self.status.row |= dict(zip(names, score_values(scores), strict=True))
            self._keep_if_best(scores)
            self._write_row()
            self.save()
        draw_examples(examples, job.spec, job.folder.examples)
        if can_draw_curves():
            draw_curve(read_journal(job.folder.journal), job.folder.curve)
        event("measured", iteration=self.iteration, dice=self._dice)
        self.report_progress("training")

    def _keep_if_best(self, scores: Scores | None) -> None:
        self._dice = None if scores is None or math.isnan(scores.mean_dice) else scores.mean_dice
        by_dice = scores is not None and self._running.best_by == "dice"
        if self.status.record_measurement(self._dice, by_dice=by_dice):
            document = None if scores is None else scores.to_json()
            self.status.best = BestNetwork(self.iteration, self._dice, document)
            card, folder = self.describe_network("training"), self._job.folder
            put_model(self._learner.network_to_keep, card, folder.model, folder.own)

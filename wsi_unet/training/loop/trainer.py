"""The course of a training: iterations, measurements, what is kept, until its end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import JsonValue

from wsi_unet.errors import LockedError, WsiUnetError
from wsi_unet.logs import event
from wsi_unet.models.checkpoint import put_model
from wsi_unet.models.spec import ModelSpec
from wsi_unet.storage.lock import OutputLock
from wsi_unet.training.artifacts.card import complete_card
from wsi_unet.training.artifacts.folder import TrainingFolder
from wsi_unet.training.artifacts.journal import Journal, read_journal
from wsi_unet.training.artifacts.pictures import (
    can_draw_curves,
    choose_places,
    draw_curve,
    draw_examples,
)
from wsi_unet.training.artifacts.state import BestNetwork, State, TrainingStatus, write_state
from wsi_unet.training.dataset import FieldSplit
from wsi_unet.training.fields import Field
from wsi_unet.training.loop.batches import BatchStream, SampleSource, making_batches
from wsi_unet.training.loop.learner import DivergedError, Learner, Step
from wsi_unet.training.loop.scores import Scores, column_names, columns
from wsi_unet.training.loop.validation import FieldLabeller, model_of
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.report import Ended, Phase, TrainingProgress
from wsi_unet.training.runtime import TrainingRuntime

RECENT = 50
"""Iterations over which the loss that is shown is a mean."""


@dataclass(frozen=True)
class TrainingJob:
    """What a training is to do, on what, and where.

    Attributes:
        recipe: what to do.
        samples: to learn from.
        parts: fields that they come from, and fields that are measured.
        data: digest of these.
        folder: where to write.
        lock: the right to.
        spec: of the model, without what is measured.
        setting: what it runs on.
        circumstances: what else the last bits depend on.
    """

    recipe: Recipe
    samples: SampleSource
    parts: FieldSplit[Field]
    data: str
    folder: TrainingFolder
    lock: OutputLock
    spec: ModelSpec
    setting: TrainingRuntime
    circumstances: dict[str, JsonValue]


def journal_columns(recipe: Recipe) -> list[str]:
    """Return the names of the journal's columns."""
    return [
        "iteration",
        "seconds",
        "loss",
        *term_names(recipe),
        "rate",
        "waited",
        *column_names([one.name for one in recipe.classes]),
    ]


def term_names(recipe: Recipe) -> list[str]:
    """Return a name for each term of the loss; the second of a kind is numbered."""
    kinds = [term.name for term in recipe.loss]
    counts = [kinds[: index + 1].count(kind) for index, kind in enumerate(kinds)]
    return [f"{kind} {n}" if n > 1 else kind for kind, n in zip(kinds, counts, strict=True)]


class Trainer:
    """A training from where it stands to its end.

    Args:
        task: what to do.
        learner: the network.
        journal: of the iterations.
        standing: how far it is.

    Attributes:
        standing: the same, later; its seconds are those of this sitting too.
    """

    def __init__(
        self, task: TrainingJob, learner: Learner, journal: Journal, standing: TrainingStatus
    ) -> None:
        self.standing = standing
        self._task, self._learner, self._journal = task, learner, journal
        self._running, self._interruption = task.recipe.running, task.setting.interruption
        self._first = learner.iteration
        self._started = self._ticked = time.monotonic()
        self._loss: float | None = None
        self._dice: float | None = None
        self._whole = True
        shown = task.parts.validation or task.parts.training
        self._places = choose_places(shown, len(task.recipe.classes), self._running.seed)

    @property
    def iteration(self) -> int:
        """How many there were."""
        return self._learner.iteration

    @property
    def waited(self) -> float:
        """Share of the time in which the network waited for samples."""
        return self.standing.seconds_waited / max(self.standing.seconds, 1e-9)

    def run(self) -> Ended:
        """Go on until the end, or until it is interrupted.

        Raises:
            TrainingError: if it can't go on.
            SlideError: if a field can't be read.
            OutputError: if the folder can't be written to.
        """
        try:
            with making_batches(
                self._task.samples,
                size=self._task.recipe.sampling.batch,
                iterations=range(self.iteration, self._running.iterations),
                workers=self._task.setting.workers,
                ahead=self._task.setting.ahead,
            ) as batches:
                return self._go_on(batches)
        except (DivergedError, LockedError):
            raise
        except WsiUnetError:
            if self._whole:
                self.save()
            raise
        except KeyboardInterrupt:
            if not self._whole:
                raise
            self.save()
            return "interrupted"

    def save(self) -> None:
        """Write the state.

        Raises:
            OutputError: if it can't be written.
            LockedError: if somebody else trains here by now.
        """
        task = self._task
        self._refuse_if_lost()
        with self._interruption.held():
            self._tick()
            state = State(
                recipe=task.recipe.model_dump(mode="json"),
                data=task.data,
                scaling=(task.spec.normalisation.mean, task.spec.normalisation.std),
                circumstances=task.circumstances,
                learner=self._learner.state(),
                standing=self.standing,
                journal=self._journal.position,
            )
            self._journal.sync()
            write_state(state, task.folder.state)

    def tell(self, phase: Phase) -> None:
        """Say where it stands."""
        self._tick()
        left, done = self._running.iterations - self.iteration, self.iteration - self._first
        pace = (time.monotonic() - self._started) / done if done else None
        best = self.standing.best
        self._task.setting.on_progress(
            TrainingProgress(
                phase=phase,
                iteration=self.iteration,
                iterations=self._running.iterations,
                loss=self._loss,
                dice=self._dice,
                best_dice=None if best is None else best.dice,
                seconds=self.standing.seconds,
                seconds_left=None if pace is None else pace * left,
                waited=self.waited,
            )
        )

    def card(self, state: str, sources: dict[str, JsonValue] | None = None) -> ModelSpec:
        """Return the spec of the model that is kept, with what was measured of it.

        Args:
            state: how far the training is.
            sources: scores of sources that were held out as a whole.
        """
        return complete_card(
            self._task.spec,
            self._task.recipe,
            self.standing,
            state=state,
            iterations=self.iteration,
            environment=self._task.circumstances,
            sources=sources or {},
        )

    def _go_on(self, batches: BatchStream) -> Ended:
        patience = self._running.patience
        while True:
            if self._is_due():
                self._measure()
            self._interruption.check()
            self._refuse_if_lost()
            if self.iteration >= self._running.iterations:
                return "finished"
            if patience and self._task.parts.validation and self.standing.waiting >= patience:
                return "stopped early"
            batch = batches.next()
            with self._undivided():
                step = self._learner.learn(batch.to(self._task.setting.device))
                self._note(step, batches.seconds_waited)
                if not self._is_due():
                    self._write_row()
            self.tell("training")

    @contextmanager
    def _undivided(self) -> Iterator[None]:
        """What happens inside happens as a whole, or isn't written down."""
        with self._interruption.held():
            self._whole = False
            yield
            self._whole = True

    def _refuse_if_lost(self) -> None:
        if self._task.lock.lost:
            raise LockedError(
                f"{self._task.folder.model}: another training has taken it over, or its lock "
                "was removed, while this one stood still; nothing was written since"
            )

    def _is_due(self) -> bool:
        last = self.iteration >= self._running.iterations
        new = self.iteration > self.standing.measured
        return new and (last or self.iteration % self._running.validate_every == 0)

    def _tick(self) -> None:
        """Count the time since the last tick."""
        now = time.monotonic()
        self.standing.seconds += now - self._ticked
        self._ticked = now

    def _note(self, step: Step, waited: float) -> None:
        self._tick()
        self.standing.seconds_waited += waited
        past = 0.0 if self._loss is None else 1 - 1 / RECENT
        self._loss = past * (self._loss or 0.0) + (1 - past) * step.loss
        self.standing.row = {
            "seconds": self.standing.seconds,
            "loss": step.loss,
            **dict(zip(term_names(self._task.recipe), step.terms, strict=True)),
            "rate": step.rate,
            "waited": self.waited,
        }

    def _write_row(self) -> None:
        self._journal.add(self.iteration, self.standing.row)
        self.standing.row = {}

    def _measure(self) -> None:
        """Measure the held-out fold; keep the network if it is the best; write everything down."""
        self._refuse_if_lost()
        self.tell("measuring")
        task, held_out = self._task, self._task.parts.validation
        labeller = FieldLabeller(
            model_of(self._learner.best_known, task.spec),
            device=task.setting.device,
            precision=task.setting.precision,
            threads=task.setting.threads,
        )
        scores = labeller.measure(held_out, self._running.validate_tiles) if held_out else None
        examples = labeller.label_whole(self._places)
        with self._undivided():
            self.standing.measured = self.iteration
            if scores is not None:
                names = column_names([one.name for one in scores.classes])
                self.standing.row |= dict(zip(names, columns(scores), strict=True))
            self._keep_if_best(scores)
            self._write_row()
            self.save()
        draw_examples(examples, task.spec, task.folder.examples)
        if can_draw_curves():
            draw_curve(read_journal(task.folder.journal), task.folder.curve)
        event("measured", iteration=self.iteration, dice=self._dice)
        self.tell("training")

    def _keep_if_best(self, scores: Scores | None) -> None:
        self._dice = None if scores is None or math.isnan(scores.mean_dice) else scores.mean_dice
        by_dice = scores is not None and self._running.best_by == "dice"
        if self.standing.judge(self._dice, by_dice=by_dice):
            found = None if scores is None else scores.to_json()
            self.standing.best = BestNetwork(self.iteration, self._dice, found)
            folder = self._task.folder
            put_model(self._learner.best_known, self.card("training"), folder.model, folder.own)

"""The course of a training: iterations, measurements, what is kept, until its end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import JsonValue

from wsi_unet.errors import WsiUnetError
from wsi_unet.logs import event
from wsi_unet.models.checkpoint import put_model
from wsi_unet.models.spec import ModelSpec
from wsi_unet.training.data import Parts
from wsi_unet.training.fields import Field
from wsi_unet.training.learning.batches import BatchStream, SampleSource, making_batches
from wsi_unet.training.learning.loop import DivergedError, Learner, Step
from wsi_unet.training.learning.scores import Scores, column_names, columns
from wsi_unet.training.learning.validation import FieldLabeller, model_of
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.records.folder import TrainingFolder
from wsi_unet.training.records.journal import Journal, read_journal
from wsi_unet.training.records.pictures import (
    can_draw_curves,
    choose_places,
    draw_curve,
    draw_examples,
)
from wsi_unet.training.records.state import Best, State, write_state
from wsi_unet.training.report import Ended, Phase, TrainingProgress
from wsi_unet.training.setting import Setting

RECENT = 50
"""Iterations over which the loss that is shown is a mean."""


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


class Course:
    """A training from where it stands to its end.

    Args:
        recipe: what to do.
        samples: to learn from.
        parts: fields that they come from, and fields that are measured.
        data: digest of these.
        folder: where to write.
        spec: of the model, without what is measured.
        setting: where it runs.
        learner: the network.
        journal: of the iterations.
        state: where it stands; None at the beginning.
        circumstances: what else the last bits depend on.

    Attributes:
        best: the network that is kept.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: SampleSource,
        parts: Parts[Field],
        data: str,
        folder: TrainingFolder,
        spec: ModelSpec,
        setting: Setting,
        learner: Learner,
        journal: Journal,
        state: State | None,
        circumstances: dict[str, JsonValue],
    ) -> None:
        self._recipe, self._samples, self._parts, self._data = recipe, samples, parts, data
        self._folder, self._spec, self._setting = folder, spec, setting
        self._learner, self._journal, self._circumstances = learner, journal, circumstances
        self._started = time.monotonic()
        self._first = learner.iteration
        self._row: dict[str, float] = {} if state is None else dict(state.row)
        self._measured = 0 if state is None else state.measured
        self._top = None if state is None else state.top
        self._waiting = 0 if state is None else state.waiting
        self._seconds = 0.0 if state is None else state.seconds
        self._seconds_waited = 0.0 if state is None else state.seconds_waited
        self._loss: float | None = None
        self._dice: float | None = None
        self._whole = True
        self.best = None if state is None else state.best
        shown = parts.validation or parts.training
        self._places = choose_places(shown, len(recipe.classes), recipe.running.seed)
        self._curves = can_draw_curves()

    @property
    def iteration(self) -> int:
        """How many there were."""
        return self._learner.iteration

    @property
    def seconds(self) -> float:
        """How long it has taken, all sittings together."""
        return self._seconds + time.monotonic() - self._started

    @property
    def waited(self) -> float:
        """Share of that in which the network waited for samples."""
        return self._seconds_waited / max(self.seconds, 1e-9)

    def run(self) -> Ended:
        """Go on until the end, or until it is interrupted.

        Raises:
            TrainingError: if it can't go on.
            SlideError: if a field can't be read.
            OutputError: if the folder can't be written to.
        """
        running = self._recipe.running
        try:
            with making_batches(
                self._samples,
                size=self._recipe.sampling.batch,
                first=self._learner.iteration,
                last=running.iterations,
                workers=self._setting.workers,
                pinned=self._setting.device != "cpu",
            ) as batches:
                return self._go_on(batches)
        except DivergedError:
            raise
        except WsiUnetError:
            self.save()
            raise
        except KeyboardInterrupt:
            if not self._whole:
                raise
            self.save()
            return "interrupted"

    def save(self) -> None:
        """Write the state."""
        with self._setting.interruption.held():
            state = State(
                recipe=self._recipe.model_dump(mode="json"),
                data=self._data,
                scaling=(self._spec.scaling.mean, self._spec.scaling.std),
                circumstances=self._circumstances,
                learner=self._learner.state(),
                measured=self._measured,
                best=self.best,
                top=self._top,
                waiting=self._waiting,
                row=self._row,
                journal=self._journal.position,
                seconds=self.seconds,
                seconds_waited=self._seconds_waited,
            )
            write_state(state, self._folder.state)

    def tell(self, phase: Phase) -> None:
        """Say where it stands."""
        iterations, done = self._recipe.running.iterations, self._learner.iteration
        new = done - self._first
        pace = (time.monotonic() - self._started) / new if new else None
        self._setting.on_progress(
            TrainingProgress(
                phase=phase,
                iteration=done,
                iterations=iterations,
                loss=self._loss,
                dice=self._dice,
                best_dice=None if self.best is None else self.best.dice,
                seconds=self.seconds,
                seconds_left=None if pace is None else pace * (iterations - done),
                waited=self.waited,
            )
        )

    def card(self, state: str, sources: dict[str, JsonValue] | None = None) -> ModelSpec:
        """Return the spec of the model that is kept, with what was measured of it.

        Args:
            state: how far the training is.
            sources: scores of sources that were held out as a whole.
        """
        best = self.best
        scores = None if best is None else best.scores
        training: dict[str, JsonValue] = {
            "state": state,
            "iterations": self._learner.iteration,
            "best_iteration": None if best is None else best.iteration,
            "seconds": round(self.seconds, 1),
            "seed": self._recipe.running.seed,
            "environment": self._circumstances,
            "recipe": self._recipe.model_dump(mode="json", exclude_none=True),
        }
        metrics: dict[str, JsonValue] = {"held_out": scores} if scores else {}
        if sources:
            metrics["sources"] = sources
        return self._spec.model_copy(update={"metrics": metrics, "training": training})

    def _go_on(self, batches: BatchStream) -> Ended:
        running, learner = self._recipe.running, self._learner
        while True:
            if self._is_due():
                self._measure()
            self._setting.interruption.check()
            if learner.iteration >= running.iterations:
                return "finished"
            if running.patience and self._waiting >= running.patience:
                return "stopped early"
            batch = batches.next()
            with self._undivided():
                step = learner.learn(batch.to(self._setting.device))
                self._note(step, batches.seconds_waited)
                if not self._is_due():
                    self._write_row()
            self.tell("training")

    @contextmanager
    def _undivided(self) -> Iterator[None]:
        """What happens inside happens as a whole, or isn't written down."""
        with self._setting.interruption.held():
            self._whole = False
            yield
            self._whole = True

    def _is_due(self) -> bool:
        running, iteration = self._recipe.running, self._learner.iteration
        last = iteration >= running.iterations
        return iteration > self._measured and (last or iteration % running.validate_every == 0)

    def _note(self, step: Step, waited: float) -> None:
        self._seconds_waited += waited
        past = 0.0 if self._loss is None else 1 - 1 / RECENT
        self._loss = past * (self._loss or 0.0) + (1 - past) * step.loss
        self._row = {
            "seconds": self.seconds,
            "loss": step.loss,
            **dict(zip(term_names(self._recipe), step.terms, strict=True)),
            "rate": step.rate,
            "waited": self.waited,
        }

    def _write_row(self) -> None:
        self._journal.add(self._learner.iteration, self._row)
        self._row = {}

    def _measure(self) -> None:
        """Measure the held-out fold; keep the network if it is the best; write everything down."""
        self.tell("measuring")
        labeller = FieldLabeller(
            model_of(self._learner.best_known, self._spec),
            device=self._setting.device,
            precision=self._setting.precision,
            threads=self._setting.threads,
        )
        held_out = self._parts.validation
        scores = labeller.measure(held_out) if held_out else None
        examples = labeller.label_whole(self._places)
        with self._undivided():
            self._measured = self._learner.iteration
            if scores is not None:
                names = column_names([one.name for one in scores.classes])
                self._row |= dict(zip(names, columns(scores), strict=True))
            self._judge(scores)
            self._write_row()
            self.save()
        draw_examples(examples, self._spec, self._folder.examples)
        if self._curves:
            draw_curve(read_journal(self._folder.journal), self._folder.curve)
        event("measured", iteration=self._measured, dice=self._dice)
        self.tell("training")

    def _judge(self, scores: Scores | None) -> None:
        """Keep the network if it is the best so far, or if nothing tells."""
        self._dice = None if scores is None or math.isnan(scores.mean_dice) else scores.mean_dice
        better = self._dice is not None and (self._top is None or self._dice > self._top)
        if better:
            self._top = self._dice
        self._waiting = 0 if better or scores is None else self._waiting + 1
        always = scores is None or self._recipe.running.best_by == "last"
        if better or always or self.best is None:
            found = None if scores is None else scores.to_json()
            self.best = Best(self._learner.iteration, self._dice, found)
            self._keep()

    def _keep(self) -> None:
        put_model(
            self._learner.best_known,
            self.card("training"),
            self._folder.model,
            self._folder.own,
        )

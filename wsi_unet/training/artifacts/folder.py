"""Where a training writes: the model's folder, which any `segment -m` can use meanwhile.

MODEL/model.json, weights.safetensors   the best network so far, a model as any other
MODEL/training/state                    what the next iterations depend on
MODEL/training/recipe.toml              what it is trained by
MODEL/training/journal.csv              what every iteration came to
MODEL/training/report.json              what came of it, once it has ended
MODEL/training/learning_curve.png       the journal, drawn
MODEL/training/examples.png             what it makes of a few held-out places
MODEL/training/tensorboard/             the journal, for TensorBoard
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wsi_unet.errors import OutputError
from wsi_unet.models.destination import MODEL_FILES, TRAINING_FOLDER, check_target, writing
from wsi_unet.storage.lock import OutputLock, Owner, acquire
from wsi_unet.storage.store import open_store

PARTIAL = ".*.partial"
"""What a training that was killed may leave behind."""


@dataclass(frozen=True)
class TrainingFolder:
    """A model's folder and what a training keeps in it.

    Attributes:
        model: the folder.
    """

    model: Path

    @property
    def own(self) -> Path:
        """The folder in it that isn't the model's but the training's."""
        return self.model / TRAINING_FOLDER

    @property
    def state(self) -> Path:
        """See `wsi_unet.training.artifacts.state`."""
        return self.own / "state"

    @property
    def recipe(self) -> Path:
        """The recipe, with all that it leaves to us."""
        return self.own / "recipe.toml"

    @property
    def journal(self) -> Path:
        """See `wsi_unet.training.artifacts.journal`."""
        return self.own / "journal.csv"

    @property
    def report(self) -> Path:
        """What came of it, see `wsi_unet.training.report`."""
        return self.own / "report.json"

    @property
    def curve(self) -> Path:
        """The journal as a picture."""
        return self.own / "learning_curve.png"

    @property
    def examples(self) -> Path:
        """What the network makes of a few places."""
        return self.own / "examples.png"

    @property
    def board(self) -> Path:
        """What TensorBoard shows."""
        return self.own / "tensorboard"

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse to write over what is there, as far as it wasn't asked for.

        Raises:
            OutputError: saying what is in the way.
        """
        if self.model.suffix == ".safetensors":
            raise OutputError(
                f"{self.model}: a training writes a folder; choose a name without .safetensors"
            )
        if resume and self._is_begun():
            if self.report.is_file() and not self.state.is_file():
                raise OutputError(
                    f"{self.model} holds a training that has ended, and {self.state} is gone, from "
                    "which it could go on; --overwrite begins anew (overwrite=True)"
                )
            return
        if self.state.is_file() and not overwrite:
            raise OutputError(
                f"{self.model} holds a training; --resume goes on with it, --overwrite begins anew "
                "(resume=True, overwrite=True)"
            )
        if not (overwrite and (self.state.is_file() or self.recipe.is_file())):
            check_target(self.model, overwrite=overwrite)

    def _is_begun(self) -> bool:
        """Tell whether a training was begun here, even if it was stopped before it wrote much."""
        if self.state.is_file() or self.recipe.is_file():
            return True
        return self.own.is_dir() and all(path.name.startswith(".") for path in self.own.iterdir())

    @contextmanager
    def locked(self) -> Iterator[OutputLock]:
        """Let nobody else train here meanwhile.

        Raises:
            LockedError: if somebody does.
            OutputError: if the folder can't be written to.
        """
        owner = Owner.current(f"train {self.model.name}")
        with acquire(open_store(self.own), owner=owner) as lock:
            with writing(self.own):
                self.own.mkdir(parents=True, exist_ok=True)
            yield lock
            if not lock.lost:
                self._sweep()

    def put_report(self, text: str) -> None:
        """Write the report, at one blow.

        Raises:
            OutputError: if it can't be written.
        """
        new = self.report.with_name(f".{self.report.name}.partial")
        with writing(self.report):
            new.write_text(text, encoding="utf-8")
            new.replace(self.report)

    def clear(self) -> None:
        """Remove the model and the training that are there, and nothing else."""
        files = (
            self.state, self.recipe, self.journal, self.report, self.curve, self.examples
        )  # fmt: skip
        for path in (*(self.model / name for name in sorted(MODEL_FILES)), *files):
            path.unlink(missing_ok=True)
        for events in self.board.glob("events.out.tfevents.*"):
            events.unlink()
        with suppress(OSError):
            self.board.rmdir()
        self._sweep()

    def _sweep(self) -> None:
        for left in self.own.glob(PARTIAL):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

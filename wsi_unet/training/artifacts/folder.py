"""The folder that a training writes: a usable model, and the training's own files.

MODEL/model.json, weights.safetensors   the best network so far, a model like any other
MODEL/training/state                    everything that the next iterations depend on
MODEL/training/recipe.toml              the recipe, in full
MODEL/training/journal.csv              per-iteration metrics
MODEL/training/report.json              the result, once the training has ended
MODEL/training/learning_curve.png       plot of the journal
MODEL/training/examples.png             predictions for a few held-out windows
MODEL/training/tensorboard/             the journal, for TensorBoard
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wsi_unet.atomic_files import PARTIAL, replace_file
from wsi_unet.errors import OutputError
from wsi_unet.models.destination import MODEL_FILES, TRAINING_FOLDER, check_replaceable, writing
from wsi_unet.storage.locking.lock import LockOwner, OutputLock, acquire
from wsi_unet.storage.opening import open_store


@dataclass(frozen=True)
class TrainingFolder:
    """The folder of a model that is trained.

    Attributes:
        model: path of the folder.
    """

    model: Path

    @property
    def own(self) -> Path:
        """The folder inside with the training's files."""
        return self.model / TRAINING_FOLDER

    @property
    def state(self) -> Path:
        """See `wsi_unet.training.artifacts.state`."""
        return self.own / "state"

    @property
    def recipe(self) -> Path:
        """The recipe, in full."""
        return self.own / "recipe.toml"

    @property
    def journal(self) -> Path:
        """See `wsi_unet.training.artifacts.journal`."""
        return self.own / "journal.csv"

    @property
    def report(self) -> Path:
        """The result, see `wsi_unet.training.report`."""
        return self.own / "report.json"

    @property
    def curve(self) -> Path:
        """Plot of the journal."""
        return self.own / "learning_curve.png"

    @property
    def examples(self) -> Path:
        """Picture of predictions for a few windows."""
        return self.own / "examples.png"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's logs."""
        return self.own / "tensorboard"

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Check that the training may write here.

        Args:
            resume: whether an existing training is to be resumed.
            overwrite: whether an existing model, and its training, may be replaced.

        Raises:
            OutputError: saying what is in the way.
        """
        if self.model.suffix == ".safetensors":
            raise OutputError(
                f"{self.model}: a training writes a folder; choose a name without .safetensors"
            )
        if resume and self._is_started():
            if self.report.is_file() and not self.state.is_file():
                raise OutputError(
                    f"{self.model} holds a training that has ended, but {self.state}, which is "
                    "needed to resume it, is gone; `overwrite=True` starts over"
                )
            return
        if self.state.is_file() and not overwrite:
            raise OutputError(
                f"{self.model} holds a training; `resume=True` continues it, `overwrite=True` "
                "starts over"
            )
        if not (overwrite and (self.state.is_file() or self.recipe.is_file())):
            check_replaceable(self.model, overwrite=overwrite)

    def _is_started(self) -> bool:
        """Return whether a training was started here, even if it has hardly written anything."""
        if self.state.is_file() or self.recipe.is_file():
            return True
        return self.own.is_dir() and all(path.name.startswith(".") for path in self.own.iterdir())

    @contextmanager
    def locked(self) -> Iterator[OutputLock]:
        """Hold the folder's lock inside, so that no other training writes here.

        Raises:
            LockedError: if another training holds it.
            OutputError: if the folder can't be written to.
        """
        owner = LockOwner.current(f"train {self.model.name}")
        with acquire(open_store(self.own), owner=owner) as lock:
            with writing(self.own):
                self.own.mkdir(parents=True, exist_ok=True)
            yield lock
            if not lock.lost:
                self._remove_partial()

    def put_report(self, text: str) -> None:
        """Write the report, atomically.

        Raises:
            OutputError: if it can't be written.
        """
        replace_file(self.report, text.encode())

    def clear(self) -> None:
        """Remove the model and its training, and nothing else."""
        files = (
            self.state, self.recipe, self.journal, self.report, self.curve, self.examples
        )  # fmt: skip
        for path in (*(self.model / name for name in sorted(MODEL_FILES)), *files):
            path.unlink(missing_ok=True)
        for events in self.tensorboard.glob("events.out.tfevents.*"):
            events.unlink()
        with suppress(OSError):
            self.tensorboard.rmdir()
        self._remove_partial()

    def _remove_partial(self) -> None:
        for path in self.own.glob(PARTIAL):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

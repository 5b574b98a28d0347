"""Small trainings: a recipe for a tiny network, and fields of squares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape, reflect
from wsi_unet.training.artifacts.folder import TrainingFolder
from wsi_unet.training.artifacts.journal import read_journal
from wsi_unet.training.artifacts.state import BestNetwork, read_state
from wsi_unet.training.dataset import FieldSplit
from wsi_unet.training.fields import FieldWindow
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.report import Training, TrainingProgress
from wsi_unet.training.run import train_on
from wsi_unet.training.runtime import choose_runtime

DOCUMENT: dict[str, Any] = {
    "name": "cells",
    "background": "ground",
    "classes": [{"name": "ground", "color": "#000000"}, {"name": "cell", "color": "#ffff00"}],
    "data": [
        {"images": "a", "labels": "a", "license": "CC0-1.0"},
        {"images": "b", "labels": "b", "citation": "Somebody 2015"},
    ],
    "sampling": {"tile": 32, "batch": 2},
    "optimiser": {"name": "sgd", "rate": 0.05, "momentum": 0.9},
    "running": {"iterations": 12, "validate_every": 4, "seed": 3, "precision": "float32"},
    "scaling": {"mean": (0.4, 0.4, 0.4), "std": (0.3, 0.3, 0.3)},
    "network": {"padding": "same", "depth": 2, "base_width": 4, "norm": "batch"},
}


def small_recipe(**sections: Any) -> Recipe:
    """Return a recipe for a tiny network; sections that are tables are merged into its own."""
    document = dict(DOCUMENT)
    for name, section in sections.items():
        present = document.get(name)
        document[name] = present | section if isinstance(section, dict) and present else section
    number, gray = len(document["classes"]), document.get("channel_order") == "gray"
    derived = {"classes": number, "in_channels": 1 if gray else 3}
    return Recipe.model_validate(document | {"network": derived | document["network"]})


@dataclass(frozen=True, eq=False)
class Squares:
    """A field of bright cells on a dark background, with noise; `labels` may differ from it."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    source: int = 0
    name: str = "squares"
    patient: str = "p"

    @property
    def shape(self) -> Shape:
        rows, columns = self.labels.shape
        return rows, columns

    @cached_property
    def amounts(self) -> Mapping[int, float]:
        values, counts = np.unique(self.labels, return_counts=True)
        return {int(v): float(n) for v, n in zip(values, counts, strict=True) if v < 254}

    @property
    def areas(self) -> Sequence[Box]:
        return [Box.from_shape(self.shape)]

    def read(self, window: Box) -> FieldWindow:
        rows = reflect(window.y0, window.y1, self.shape[0])[:, None]
        columns = reflect(window.x0, window.x1, self.shape[1])
        labels = self.labels[rows, columns]
        return FieldWindow(self.image[rows, columns], labels, np.zeros(labels.shape, np.float32))

    def point(self, index: int | None, rng: np.random.Generator) -> tuple[int, int]:
        there = np.argwhere(self.labels < 254 if index is None else self.labels == index)
        y, x = there[rng.integers(len(there))]
        return int(y), int(x)


def squares(
    seed: int = 0, shape: Shape = (70, 90), source: int = 0, classes: int = 2, side: int = 8
) -> Squares:
    """Return a field with squares of every class; class c is about 50 + 150·c/(classes − 1)."""
    rng = np.random.default_rng(seed)
    rows, columns = (-(-length // side) for length in shape)
    coarse = rng.integers(0, classes, (rows, columns))
    labels = np.kron(coarse, np.ones((side, side))).astype(np.uint8)[: shape[0], : shape[1]]
    grey = 50 + 150 * labels.astype(np.float64) / max(1, classes - 1)
    image = np.clip(grey[..., None] + rng.normal(0, 12, (*shape, 3)), 0, 255).astype(np.uint8)
    return Squares(image, labels, source, f"squares {seed}", f"p{seed}")


def small_split(classes: int = 2) -> FieldSplit[Squares]:
    """Return three fields to train on, one held out, and one of a source that is held out."""
    return FieldSplit(
        training=[squares(seed, classes=classes) for seed in range(3)],
        validation=[squares(3, (50, 60), classes=classes)],
        hold_out={1: [squares(4, (40, 60), source=1, classes=classes)]},
    )


def train_small(
    recipe: Recipe,
    model: Path,
    *,
    split: FieldSplit[Squares] | None = None,
    resume: bool = False,
    workers: int = 0,
    tensorboard: bool = False,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> Training:
    """Train a small network on one thread."""
    runtime = choose_runtime(
        recipe, device="cpu", workers=workers, threads=1, on_progress=on_progress
    )
    return train_on(
        recipe,
        split or small_split(),
        TrainingFolder(model),
        runtime,
        resume=resume,
        tensorboard=tensorboard,
    )


def stop_after(iteration: int, phase: str = "training") -> Callable[[TrainingProgress], None]:
    """Return an `on_progress` that interrupts a training after an iteration."""

    def stop(progress: TrainingProgress) -> None:
        if (progress.iteration, progress.phase) == (iteration, phase):
            raise KeyboardInterrupt

    return stop


def what_counts(model: Path) -> dict[str, object]:
    """Return the files that a training wrote (model, state, journal) without times."""
    journal = read_journal(model / "training" / "journal.csv")
    saved = read_state(model / "training" / "state")
    state = {**vars(saved), **vars(saved.status)}
    timed = {"seconds", "seconds_waited", "waited", "journal", "status"}
    return {
        "weights": (model / "weights.safetensors").read_bytes(),
        "journal": str({name: column for name, column in journal.items() if name not in timed}),
        "state": flat({name: value for name, value in state.items() if name not in timed}),
    }


def flat(document: Any) -> Any:
    """Return a document with tensors as bytes, so that it can be compared."""
    if isinstance(document, torch.Tensor):
        return str(document.dtype), document.contiguous().numpy().tobytes()
    if isinstance(document, Mapping):
        return {key: flat(value) for key, value in document.items()}
    if isinstance(document, BestNetwork):
        return flat(vars(document))
    if isinstance(document, list | tuple):
        return [flat(value) for value in document]
    return document

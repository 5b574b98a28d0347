"""Everything that a training needs to run, in one object."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from wsi_unet.models.spec import ModelSpec
from wsi_unet.storage.locking.lock import OutputLock
from wsi_unet.training.artifacts.folder import TrainingFolder
from wsi_unet.training.dataset import FieldSplit
from wsi_unet.training.fields import TrainingField
from wsi_unet.training.loop.batches import SampleSource
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.runtime import TrainingRuntime


@dataclass(frozen=True)
class TrainingJob:
    """What a training does, with what data, and where.

    Attributes:
        recipe: how to train.
        samples: samples to learn from.
        split: fields that samples come from, and fields to measure.
        data: hash of the fields.
        folder: folder to write to.
        lock: lock of the folder.
        spec: spec of the model, without measurements.
        runtime: what the training runs on.
        environment: what the exact bits depend on besides the recipe.
    """

    recipe: Recipe
    samples: SampleSource
    split: FieldSplit[TrainingField]
    data: str
    folder: TrainingFolder
    lock: OutputLock
    spec: ModelSpec
    runtime: TrainingRuntime
    environment: dict[str, JsonValue]

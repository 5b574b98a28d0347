"""Plans of trainings: what one would do. All data are opened, nothing is written."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Unpack

from wsi_unet.models.networks.build import build_network
from wsi_unet.models.spec import Normalisation
from wsi_unet.training.artifacts.card import describe_model
from wsi_unet.training.augmentation.samples import Samples
from wsi_unet.training.dataset import Portion, describe_fields, open_fields, split_fields
from wsi_unet.training.loop.losses import build_loss
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_file import resolve_recipe
from wsi_unet.training.runtime import RuntimeOptions, choose_runtime


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would do.

    Attributes:
        name: name of the model.
        portions: the data, by source and by what they are used for.
        parameters: number of the network's parameters.
        window: side of the image that the network sees, px.
        tile: side of the labels that it learns from, px.
        batch: samples per iteration.
        iterations: number of iterations.
        mpp: µm per pixel to train at; None: pixels as they are.
        device: device it would run on.
        precision: number type of the convolutions.
        threads: threads of the network, on a CPU.
        workers: processes that make samples.
    """

    name: str
    portions: tuple[Portion, ...]
    parameters: int
    window: int
    tile: int
    batch: int
    iterations: int
    mpp: float | None
    device: str
    precision: str
    threads: int
    workers: int

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON document."""
        return asdict(self)


def plan_training(
    recipe: Recipe | str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    **runtime: Unpack[RuntimeOptions],
) -> TrainingPlan:
    """Open all data of a recipe, draw a sample, and return what a training would do.

    Args:
        recipe: a recipe, or the path of a TOML file.
        data: folder that paths in the recipe are relative to; None: the recipe's folder, or the
            current one.
        **runtime: see `RuntimeOptions`.

    Raises:
        RecipeError: the recipe, or the data that it names, is unusable.
        OptionError: there is no such device.
        SlideError: an image can't be read.
    """
    recipe, folder = resolve_recipe(recipe, data)
    chosen = choose_runtime(recipe, **runtime)
    build_loss(recipe.loss, recipe.background_index, recipe.head)
    channels = recipe.network.in_channels
    identity = Normalisation(mean=(0.0,) * channels, std=(1.0,) * channels)
    describe_model(recipe, identity, "")
    split = split_fields(recipe, open_fields(recipe, folder))
    samples = Samples(recipe, split.training, identity)
    _ = samples[0]
    return TrainingPlan(
        name=recipe.name,
        portions=tuple(describe_fields(recipe, split)),
        parameters=sum(p.numel() for p in build_network(recipe.network).parameters()),
        window=samples.sides.image,
        tile=samples.sides.labels,
        batch=recipe.sampling.batch,
        iterations=recipe.running.iterations,
        mpp=recipe.mpp,
        device=chosen.device,
        precision=chosen.precision,
        threads=chosen.threads,
        workers=chosen.workers,
    )

"""What a training would do, without doing it: all data are opened, the network is counted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsi_unet.models.networks.build import build_network
from wsi_unet.models.spec import Normalisation
from wsi_unet.training.artifacts.card import describe_model
from wsi_unet.training.augmentation.samples import Samples
from wsi_unet.training.dataset import Portion, describe_fields, open_fields, split_fields
from wsi_unet.training.loop.losses import build_loss
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_file import read_recipe
from wsi_unet.training.runtime import choose_runtime


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would do.

    Attributes:
        name: of the model.
        portions: what each source gives to each part.
        parameters: numbers in the network.
        window: side of the image that the network sees, px.
        tile: side of the labels that it learns from, px.
        batch: samples per iteration.
        iterations: how many.
        mpp: µm per pixel to train at; None: pixels as they are.
        device: what it would run on.
        precision: number type of the convolutions.
        threads: of the network, on a CPU.
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
        """Return it as a JSON document."""
        return asdict(self)


def plan_training(
    recipe: Recipe | str | Path,
    *,
    data: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    threads: int | None = None,
) -> TrainingPlan:
    """Open all data of a recipe, draw a sample, and say what would be done; nothing is written.

    Args:
        recipe: what to do, or the path of a TOML file that says it.
        data: folder that the recipe's data lie in; None: the recipe's, or the current one.
        device: "auto", "cpu", "cuda" or "cuda:i".
        workers: processes that make samples; None: as suits the device.
        threads: cores for the network on a CPU; None: all.

    Raises:
        RecipeError: the recipe, or the data that it names, is unusable.
        OptionError: there is no such device.
        SlideError: an image can't be read.
    """
    if not isinstance(recipe, Recipe):
        data = Path(recipe).parent if data is None else data
        recipe = read_recipe(Path(recipe))
    setting = choose_runtime(recipe, device=device, workers=workers, threads=threads)
    build_loss(recipe.loss, recipe.background_index, recipe.head)
    channels = recipe.network.in_channels
    scaling = Normalisation(mean=(0.0,) * channels, std=(1.0,) * channels)
    describe_model(recipe, scaling, "")
    parts = split_fields(recipe, open_fields(recipe, Path(data or ".")))
    samples = Samples(recipe, parts.training, scaling)
    _ = samples[0]
    return TrainingPlan(
        name=recipe.name,
        portions=tuple(describe_fields(recipe, parts)),
        parameters=sum(p.numel() for p in build_network(recipe.network).parameters()),
        window=samples.sides.image,
        tile=samples.sides.labels,
        batch=recipe.sampling.batch,
        iterations=recipe.running.iterations,
        mpp=recipe.mpp,
        device=setting.device,
        precision=setting.precision,
        threads=setting.threads,
        workers=setting.workers,
    )

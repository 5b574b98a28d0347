"""The model card of a trained network: its spec, from the recipe and from the measurements."""

from __future__ import annotations

import hashlib
import json
import platform

import numpy as np
import torch
from pydantic import JsonValue, ValidationError

from wsi_unet._version import __version__
from wsi_unet.errors import RecipeError
from wsi_unet.models.inference.devices import describe_devices
from wsi_unet.models.spec import ModelSpec, Normalisation
from wsi_unet.models.validation_errors import first_problem
from wsi_unet.training.artifacts.state import TrainingStatus
from wsi_unet.training.augmentation.samples import sample_sides
from wsi_unet.training.dataset import FieldSplit
from wsi_unet.training.fields import TrainingField
from wsi_unet.training.recipe import Recipe


def describe_model(recipe: Recipe, normalisation: Normalisation, training_data: str) -> ModelSpec:
    """Return the spec of the model that a recipe makes, without measurements.

    Args:
        recipe: the recipe.
        normalisation: how intensities are normalised.
        training_data: see `describe_data`.

    Raises:
        RecipeError: if the recipe doesn't make a valid model.
    """
    network = recipe.network
    try:
        return ModelSpec(
            name=recipe.name,
            architecture=network,
            head=recipe.head,
            # A network that looks at its whole window is used with the window it was trained with.
            window=None if network.local else sample_sides(network, recipe.sampling.tile).image,
            classes=tuple(recipe_class.to_class() for recipe_class in recipe.classes),
            background=recipe.background,
            mpp=recipe.mpp,
            channel_order=recipe.channel_order,
            normalisation=normalisation,
            license=recipe.license,
            description=recipe.description,
            training_data=training_data,
            objects=recipe.objects,
        )
    except ValidationError as error:
        raise RecipeError(f"recipe {recipe.name}: {first_problem(error)}") from error


def describe_data(recipe: Recipe, split: FieldSplit[TrainingField]) -> str:
    """Return how the data of each source were used, with licences and citations."""
    sources = []
    for number, source in enumerate(recipe.data):
        uses = {
            "trained on": split.training,
            "held out": split.validation,
            "measured apart": split.hold_out.get(number, []),
        }
        counts = {
            use: sum(field.source == number for field in fields) for use, fields in uses.items()
        }
        used = ", ".join(f"{count} {use}" for use, count in counts.items() if count)
        notes = "; ".join(filter(None, (source.license, source.citation)))
        sources.append(f"{source.images}: {used or 'not used'}" + (f" ({notes})" if notes else ""))
    if recipe.sampling.empty:
        sources.append("synthetic background without objects")
    return "; ".join(sources)


def describe_environment(device: str) -> dict[str, JsonValue]:
    """Return the versions and the hardware that a training runs with."""
    (described,) = [known for known in describe_devices() if known.name == device]
    return {
        "wsi_unet": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": device,
        "processor": described.description,
    }


def complete_card(
    spec: ModelSpec,
    recipe: Recipe,
    status: TrainingStatus,
    *,
    state: str,
    iterations: int,
    environment: dict[str, JsonValue],
    sources: dict[str, JsonValue],
) -> ModelSpec:
    """Return a spec completed with the kept network's scores and the facts of its training.

    Args:
        spec: spec of the model.
        recipe: recipe that it is trained by.
        status: progress of the training.
        state: state of the training: "training", or how it ended.
        iterations: iterations done.
        environment: versions and hardware.
        sources: scores on the sources that are held out as a whole.
    """
    best = status.best
    training: dict[str, JsonValue] = {
        "state": state,
        "iterations": iterations,
        "best_iteration": None if best is None else best.iteration,
        "seconds": round(status.seconds, 1),
        "seed": recipe.running.seed,
        "environment": environment,
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
    }
    metrics: dict[str, JsonValue] = {}
    if best is not None and best.scores is not None:
        metrics["held_out"] = best.scores
    if sources:
        metrics["sources"] = sources
    return spec.model_copy(update={"metrics": metrics, "training": training})


def hash_data(split: FieldSplit[TrainingField]) -> str:
    """Return a hash of the fields that are trained on and measured, whatever their folder."""
    facts = [
        [(field.source, list(field.shape), sorted(field.amounts.items())) for field in fields]
        for fields in (split.training, split.validation, *split.hold_out.values())
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

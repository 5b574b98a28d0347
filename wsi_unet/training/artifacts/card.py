"""What a trained model says of itself: its spec, from the recipe and from what was measured."""

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
from wsi_unet.training.fields import Field
from wsi_unet.training.recipe import Recipe


def describe_model(recipe: Recipe, normalisation: Normalisation, training_data: str) -> ModelSpec:
    """Return the spec of the model that a recipe makes, without what is measured.

    Raises:
        RecipeError: if the recipe describes no model.
    """
    network = recipe.network
    try:
        return ModelSpec(
            name=recipe.name,
            architecture=network,
            head=recipe.head,
            # What looks at all of a window is used as it was trained.
            window=None if network.local else sample_sides(network, recipe.sampling.tile).image,
            classes=tuple(one.to_class() for one in recipe.classes),
            background=recipe.background,
            mpp=recipe.mpp,
            channel_order=recipe.channel_order,
            normalisation=normalisation,
            license=recipe.license,
            description=recipe.description,
            training_data=training_data,
        )
    except ValidationError as error:
        raise RecipeError(f"recipe {recipe.name}: {first_problem(error)}") from error


def describe_data(recipe: Recipe, parts: FieldSplit[Field]) -> str:
    """Return what was trained on, source by source, with licences and whom to name."""
    said = []
    for number, source in enumerate(recipe.data):
        groups = {
            "trained on": parts.training,
            "held out": parts.validation,
            "measured apart": parts.hold_out.get(number, []),
        }
        counts = {
            what: sum(field.source == number for field in fields) for what, fields in groups.items()
        }
        used = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        notes = "; ".join(filter(None, (source.license, source.citation)))
        said.append(f"{source.images}: {used or 'not used'}" + (f" ({notes})" if notes else ""))
    if recipe.sampling.empty:
        said.append("made-up ground without objects")
    return "; ".join(said)


def describe_environment(device: str) -> dict[str, JsonValue]:
    """Return what the training ran on, and with."""
    (found,) = [one for one in describe_devices() if one.name == device]
    return {
        "wsi_unet": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": device,
        "processor": found.description,
    }


def complete_card(
    spec: ModelSpec,
    recipe: Recipe,
    standing: TrainingStatus,
    *,
    state: str,
    iterations: int,
    environment: dict[str, JsonValue],
    sources: dict[str, JsonValue],
) -> ModelSpec:
    """Return a spec with what was measured of the network that is kept, and how it came about.

    Args:
        spec: of the model.
        recipe: what it is trained by.
        standing: how far the training is.
        state: the same in words.
        iterations: how many there were.
        environment: what it runs on.
        sources: scores of sources that were held out as a whole.
    """
    best = standing.best
    training: dict[str, JsonValue] = {
        "state": state,
        "iterations": iterations,
        "best_iteration": None if best is None else best.iteration,
        "seconds": round(standing.seconds, 1),
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


def digest_of(parts: FieldSplit[Field]) -> str:
    """Return a hash of what is trained on and measured, whatever folder it lies in."""
    facts = [
        [(field.source, list(field.shape), sorted(field.amounts.items())) for field in fields]
        for fields in (parts.training, parts.validation, *parts.hold_out.values())
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

"""What a trained model says of itself: its spec, from the recipe and from what was measured."""

from __future__ import annotations

import hashlib
import json
import platform

import numpy as np
import torch
from pydantic import JsonValue, ValidationError

import wsi_unet
from wsi_unet.errors import RecipeError
from wsi_unet.models.problems import first_problem
from wsi_unet.models.running.devices import describe_devices
from wsi_unet.models.spec import ModelSpec, Scaling
from wsi_unet.training.data import Parts
from wsi_unet.training.fields import Field
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.samples.samples import sides_of


def describe_model(recipe: Recipe, scaling: Scaling, training_data: str) -> ModelSpec:
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
            window=None if network.local else sides_of(network, recipe.sampling.tile).image,
            classes=tuple(one.to_class() for one in recipe.classes),
            background=recipe.background,
            mpp=recipe.mpp,
            channel_order=recipe.channel_order,
            scaling=scaling,
            license=recipe.license,
            description=recipe.description,
            training_data=training_data,
        )
    except ValidationError as error:
        raise RecipeError(f"recipe {recipe.name}: {first_problem(error)}") from error


def describe_data(recipe: Recipe, parts: Parts[Field]) -> str:
    """Return what was trained on, source by source, with licences and whom to name."""
    said = []
    for number, source in enumerate(recipe.data):
        groups = {
            "trained on": parts.training,
            "held out": parts.validation,
            "measured apart": parts.apart.get(number, []),
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
        "wsi_unet": wsi_unet.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": device,
        "processor": found.description,
    }


def digest_of(parts: Parts[Field]) -> str:
    """Return a hash of what is trained on and measured, whatever folder it lies in."""
    facts = [
        [(field.source, list(field.shape), sorted(field.amounts.items())) for field in fields]
        for fields in (parts.training, parts.validation, *parts.apart.values())
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

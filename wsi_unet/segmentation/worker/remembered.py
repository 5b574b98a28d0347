"""Measurements that later runs of the same model on the same device need not repeat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from wsi_unet import user_cache
from wsi_unet._version import __version__
from wsi_unet.models.inference.devices import identify_device
from wsi_unet.models.inference.predictor import Predictor
from wsi_unet.models.inference.tiles import TileChoice
from wsi_unet.segmentation.worker.measurement import ProbeRequest
from wsi_unet.slides.tissue.mask import mask_digest

MOST_SPEED = 1e6
"""Millions of pixels per second that no device reaches; a larger remembered speed is ignored."""


def recall_tile(
    predictor: Predictor, request: ProbeRequest, sides: Sequence[int]
) -> TileChoice | None:
    """Return the tile that an earlier run chose, which may no longer fit; None if none did.

    Args:
        predictor: the models on their device.
        request: the run.
        sides: sides that were to choose from, px.
    """
    value = user_cache.recall(_tile_key(predictor, request, sides))
    try:
        tile = value["tile"]
        speeds = {int(side): float(speed) for side, speed in value["speeds"].items()}
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    if not all(0 < speed < MOST_SPEED for speed in speeds.values()):
        return None
    return TileChoice(tile, "remembered", speeds)


def remember_tile(
    predictor: Predictor, request: ProbeRequest, sides: Sequence[int], choice: TileChoice
) -> None:
    """Remember a tile for runs with the same sides to choose from, px."""
    speeds = {str(side): speed for side, speed in choice.speeds.items()}
    key = _tile_key(predictor, request, sides)
    user_cache.remember(key, {"tile": choice.tile, "speeds": speeds})


def recall_agreement(predictor: Predictor, request: ProbeRequest) -> float | None:
    """Return the share of labels equal to float32's, 0 to 1; None if no run has measured it."""
    known = user_cache.recall(_agreement_key(predictor, request))
    return float(known) if isinstance(known, int | float) and 0 <= known <= 1 else None


def remember_agreement(predictor: Predictor, request: ProbeRequest, share: float) -> None:
    """Remember the share of labels equal to float32's, 0 to 1, for this slide and model."""
    user_cache.remember(_agreement_key(predictor, request), share)


def _tile_key(predictor: Predictor, request: ProbeRequest, sides: Sequence[int]) -> dict[str, Any]:
    return {
        "measured": "tile",
        "sides": list(sides),
        "probabilities": request.probabilities,
        "processes_per_core": request.processes_per_core,
        **_device_key(predictor, request),
    }


def _agreement_key(predictor: Predictor, request: ProbeRequest) -> dict[str, Any]:
    resampling = request.resampling
    return {
        "measured": "agreement",
        "slide": request.slide.fingerprint,
        "grid": [resampling.level, list(resampling.ratio), list(resampling.shape)],
        "statistics": [[list(scale.mean), list(scale.std)] for scale in request.statistics],
        "mask": None if request.mask is None else mask_digest(request.mask),
        **_device_key(predictor, request),
    }


def _device_key(predictor: Predictor, request: ProbeRequest) -> dict[str, Any]:
    """Return what any measurement depends on: model, machine and versions."""
    return {
        "model": request.model.sha256,
        "tta": request.tta,
        "device": identify_device(predictor.device),
        "precision": predictor.precision,
        "threads": predictor.threads,
        "torch": torch.__version__,
        "wsi_unet": __version__,
    }

"""Small synthetic training data, and recipes for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from wsi_unet.training.recipe import Recipe

GROUND = {"name": "ground", "color": "#000000"}
CELL = {"name": "cell", "color": "#ffd700"}


def make_recipe(*data: dict[str, Any], **sections: Any) -> Recipe:
    """Return a recipe for the classes ground and cell, with these data and sections."""
    document = {
        "name": "test",
        "background": "ground",
        "classes": [GROUND, CELL],
        "data": list(data),
        "split": {"folds": 1},
    } | sections
    network = {"depth": 1, "base_width": 2, "in_channels": 3, "classes": len(document["classes"])}
    return Recipe.model_validate({"network": network} | document)


def make_image(shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Return slightly smoothed RGB noise."""
    noise = np.random.default_rng(seed).normal(128, 90, (*shape, 3))
    smooth: NDArray[np.float64] = ndimage.gaussian_filter(noise, (1, 1, 0))
    return np.clip(smooth, 0, 255).astype(np.uint8)


def make_instances(shape: tuple[int, int], seed: int = 0, number: int = 30) -> NDArray[np.uint16]:
    """Return discs that overlap and touch; some numbers are left out."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    instances = np.zeros(shape, np.uint16)
    for i in range(number):
        y, x, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(3, 9)
        instances[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = 7 * i + 3
    return instances


def save(path: Path, pixels: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_pairs(
    folder: Path, shapes: list[tuple[int, int]], number: int = 30
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint16]]]:
    """Write images/i.png and instances/i.png, and return them."""
    pairs = []
    for i, shape in enumerate(shapes):
        pair = make_image(shape, i), make_instances(shape, i, number)
        save(folder / "images" / f"{i}.png", pair[0])
        save(folder / "instances" / f"{i}.png", pair[1])
        pairs.append(pair)
    return pairs


INSTANCES: dict[str, Any] = {"images": "images", "labels": "instances", "kind": "instances"}

"""A finished result with objects, for the tests of exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from objects import shapes
from support.labelled import write_store

import wsi_unet

SHAPE = (700, 1100)


def _draw() -> np.ndarray[Any, np.dtype[np.uint8]]:
    labels = np.zeros(SHAPE, np.uint8)
    for y in range(0, SHAPE[0], 130):
        for x in range(0, SHAPE[1], 170):
            part = labels[y : y + 120, x : x + 150]
            part[...] = shapes.touching_discs(160, seed=y + x)[: part.shape[0], : part.shape[1]]
    labels[400:640, 600:1000] = 2  # a region with a hole, across blocks
    labels[500:540, 700:800] = 0
    return labels


LABELS = _draw()
"""Discs of class 1 that touch, and a large region of class 2 with a hole."""


def make_result(path: Path, *, block: int = 512, **options: Any) -> Path:
    """Write a result with `LABELS` and their objects; return its path.

    Args:
        path: where.
        block: side of its blocks.
        options: of `support.labelled.write_store`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_store(path, options.pop("labels", LABELS), block=block, **options)
    wsi_unet.find_objects(path)
    return path

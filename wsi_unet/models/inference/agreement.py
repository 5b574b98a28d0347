"""Comparing the labels of a number type with float32's on real windows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape
from wsi_unet.models.inference.ensemble import IntensityStatistics
from wsi_unet.models.inference.predictor import Predictor

FLOAT32_COST = 8
"""How many times as long as in a shorter type a forward pass takes in float32, at most, where
`precision="auto"` chooses the shorter."""


def measure_agreement(
    predictor: Predictor,
    windows: Iterable[tuple[NDArray[np.uint8], Box, Box]],
    shape: Shape,
    statistics: tuple[IntensityStatistics, ...] = (),
) -> float | None:
    """Return the share of pixels that get the same label as in float32; None without pixels.

    Args:
        predictor: the models in the precision to judge; for float32, 1 is returned at once.
        windows: arguments for `Predictor.predict`: pixels of the slide, their window, its core.
        shape: (rows, columns) of the slide on the model's grid, px.
        statistics: how the models' intensities are normalised; () for their own constants.
    """
    if predictor.precision == "float32":
        return 1.0
    reference = Predictor(
        predictor.ensemble,
        device=predictor.device,
        precision="float32",
        threads=predictor.threads,
    )
    same = total = 0
    for pixels, window, core in windows:
        labels, exact = (
            p.predict(pixels, window, core, shape, statistics=statistics).labels
            for p in (predictor, reference)
        )
        same += int(np.count_nonzero(labels == exact))
        total += labels.size
    return same / total if total else None

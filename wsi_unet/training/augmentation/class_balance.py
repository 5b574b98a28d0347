"""Weights that make up for rare classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def class_balance(amounts: Sequence[float]) -> NDArray[np.float32]:
    """Return the weight of a pixel of each class, (k,), inverse to the class's number of pixels.

    So all classes have the same total weight, and the mean weight of a pixel is 1. A class without
    pixels gets the weight of the rarest class with pixels.

    >>> class_balance([50, 200]).tolist()
    [2.5, 0.625]

    Args:
        amounts: number of pixels of each class.
    """
    present = [amount for amount in amounts if amount > 0]
    if not present:
        return np.ones(len(amounts), np.float32)
    rarest, share = min(present), math.fsum(present) / len(present)
    return np.array([share / (amount or rarest) for amount in amounts], np.float32)

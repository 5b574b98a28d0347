"""Weights that follow from their names, so that large networks can be compared without a file."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def named_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of the same names and shapes, the same on every machine."""
    return {
        name: _numbers(name, tuple(tensor.shape))
        if tensor.is_floating_point()
        else torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in state.items()
    }


def _numbers(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = np.random.RandomState(zlib.crc32(name.encode()))
    uniform = generator.random_sample(shape).astype(np.float32)
    if len(shape) > 1:
        return torch.from_numpy((uniform - 0.5) * math.sqrt(24 / math.prod(shape[1:])))
    if name.endswith((".bias", "running_mean")):
        return torch.from_numpy(0.4 * (uniform - 0.5))
    return torch.from_numpy(0.6 + 0.4 * uniform)


def image_of(rows: int, columns: int) -> Tensor:
    """Return an image (1, 3, rows, columns) that is the same on every machine."""
    generator = np.random.RandomState(0)
    return torch.from_numpy(generator.random_sample((1, 3, rows, columns)).astype(np.float32))

"""Whether weights are numbers."""

from __future__ import annotations

import torch
from torch import Tensor

_PIECE = 2**20


def all_finite(tensor: Tensor) -> bool:
    """Return whether nothing in it is NaN or infinite, with little memory besides.

    Both show in the sum of 0·x.
    """
    pieces = torch.split(tensor.reshape(-1), _PIECE)
    return all(bool((piece * 0).sum().isfinite()) for piece in pieces)

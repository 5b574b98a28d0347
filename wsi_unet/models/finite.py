"""Finding NaN and infinite weights."""

from __future__ import annotations

import torch
from torch import Tensor

_PIECE = 2**20
"""Numbers that are looked at together, so that a check takes little memory."""


def all_finite(tensor: Tensor) -> bool:
    """Return whether no number of a tensor is NaN or infinite.

    Either makes the sum of 0·x NaN.
    """
    pieces = torch.split(tensor.reshape(-1), _PIECE)
    return all(bool((piece * 0).sum().isfinite()) for piece in pieces)

"""Group norm that is as exact in every memory layout."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override


class GroupNorm(nn.GroupNorm):
    """PyTorch's group norm, on maps whose channels lie one after the other.

    With channels last, PyTorch 2.13 on CPUs computes the variance as E[x²] - E[x]² in float32.
    Where the mean is a hundred times the deviation, as on empty glass, all its digits are lost.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.contiguous())

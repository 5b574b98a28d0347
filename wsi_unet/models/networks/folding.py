"""Folding batch normalisation into convolutions, which doesn't change the network's output."""

from __future__ import annotations

import copy

import torch
from torch import nn


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return a copy in which each convolution does the work of the batch norm after it.

    A convolution W·x + b followed by γ·(· − μ)/√(σ² + ε) + β is the convolution with weights
    (γ/√(σ² + ε))·W and bias β + (b − μ)·γ/√(σ² + ε). The factors are computed in float64, so a
    16-bit network doesn't lose them, and a pass over the memory is saved in every precision.

    Args:
        network: a network in evaluation mode. Batch norms that stand right after a convolution in
            an `nn.Sequential` are folded; others are left as they are.

    Raises:
        ValueError: such a batch norm has no running statistics.
    """
    folded = copy.deepcopy(network)
    for parent in list(folded.modules()):
        if not isinstance(parent, nn.Sequential):
            continue
        layers = list(parent)
        for index in reversed(range(1, len(layers))):
            before, norm = layers[index - 1 : index + 1]
            if isinstance(before, _CONVOLUTIONS) and isinstance(norm, nn.BatchNorm2d):
                _fold(before, norm)
                del parent[index]
    return folded


_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def _fold(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("batch norm without running statistics depends on its input")
    factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    # A transposed convolution's weights have the outputs second.
    shape = (-1, 1, 1, 1) if isinstance(convolution, nn.Conv2d) else (-1, 1, 1)
    weight = convolution.weight.double() * factor.reshape(shape)
    bias = 0.0 if convolution.bias is None else convolution.bias.double()
    shifted = norm.bias.double() + (bias - norm.running_mean.double()) * factor
    dtype = convolution.weight.dtype
    convolution.weight = nn.Parameter(weight.detach().to(dtype))
    convolution.bias = nn.Parameter(shifted.detach().to(dtype))

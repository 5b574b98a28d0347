"""Turning a network's output into probabilities and labels, on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from typing_extensions import override

if TYPE_CHECKING:
    from wsi_unet.models.spec import ModelSpec

THRESHOLD = 0.5
"""The probability above which a pixel belongs to a class, where the spec says nothing else."""


class Head(Protocol):
    """A reading of a network's output, float32 (classes, rows, columns), as labels.

    Labels are decided on scores: the output itself where it orders the classes as probabilities
    do and costs less, or else the probabilities. Probabilities are scores too.
    """

    def scores(self, output: Tensor) -> Tensor:
        """Return the scores of an output, (classes, rows, columns)."""

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the probabilities that scores mean, (classes, rows, columns), from 0 to 1."""

    def labels(self, scores: Tensor) -> Tensor:
        """Return the label images that scores mean, uint8 (label images, rows, columns)."""


def choose_head(spec: ModelSpec) -> Head:
    """Return the head that reads a model's output."""
    if spec.head == "softmax":
        return Softmax(spec.label_values, spec.activated)
    return Sigmoid(spec.thresholds or (THRESHOLD,) * len(spec.classes), spec.activated)


@dataclass(frozen=True)
class Softmax(Head):
    """A head whose classes exclude each other: the largest score wins, the first among equals.

    Attributes:
        values: the label value of each class.
        activated: whether the output already is the softmax.
    """

    values: tuple[int, ...]
    activated: bool

    @override
    def scores(self, output: Tensor) -> Tensor:
        return output  # the largest logit is the largest probability

    @override
    def probabilities(self, scores: Tensor) -> Tensor:
        return scores if self.activated else scores.softmax(dim=0)

    @override
    def labels(self, scores: Tensor) -> Tensor:
        best = scores[0]
        labels = torch.full(best.shape, self.values[0], dtype=torch.uint8, device=scores.device)
        for value, score in zip(self.values[1:], scores[1:], strict=True):
            labels.masked_fill_(score > best, value)
            best = torch.maximum(best, score)
        return labels[None]


@dataclass(frozen=True)
class Sigmoid(Head):
    """A head whose classes may overlap: a pixel is in each class that is above its threshold.

    Each class has a label image of its own, which is 1 where a pixel belongs to the class.

    Attributes:
        thresholds: one probability per class.
        activated: whether the output already is the sigmoid.
    """

    thresholds: tuple[float, ...]
    activated: bool

    @override
    def scores(self, output: Tensor) -> Tensor:
        return output if self.activated else output.sigmoid()

    @override
    def probabilities(self, scores: Tensor) -> Tensor:
        return scores

    @override
    def labels(self, scores: Tensor) -> Tensor:
        above = [score > limit for score, limit in zip(scores, self.thresholds, strict=True)]
        return torch.stack(above).to(torch.uint8)


def quantise(probabilities: Tensor) -> Tensor:
    """Return probabilities as uint8 (classes, rows, columns), where 255 stands for 1."""
    scaled = (probabilities * 255).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).contiguous()

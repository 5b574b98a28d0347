"""Losses: what is wrong with a network's logits, in one number that can be differentiated.

Logits are (n, k, h, w); labels int64 (n, h, w), a class's index, `IGNORED` or `NOTHING`; weights
(n, h, w), what each pixel weighs in the cross entropies. Pixels that are ignored have no influence
on anything, and pixels of no class are a negative of every class, which only sigmoid heads can
learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from wsi_unet.errors import RecipeError
from wsi_unet.training.fields import IGNORED, NOTHING
from wsi_unet.training.recipe import LossTerm

Head = Literal["softmax", "sigmoid"]

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, labels, weights) to a scalar."""

SMOOTH = 1e-5
"""Px added to both sides of an overlap's fraction; as nnU-Net does (Isensee et al. 2021)."""

LEAST_ERROR = 1e-7
"""What 1 − p is at least in the focal loss: below, a power less than 1 has no finite slope."""


def build_loss(terms: Sequence[LossTerm], background: int | None, head: Head) -> Loss:
    """Return the sum of terms, each times its weight.

    Args:
        terms: of a recipe.
        background: the class that overlaps leave out unless a term says otherwise; None: they take
            all.
        head: of the network.

    Returns:
        A function that computes in float32, or float64 if the logits are, whatever the logits. It
        raises RecipeError for labels that aren't classes, and for pixels of no class if the head is
        a softmax.

    Raises:
        RecipeError: a term isn't for this head.
    """
    known = TERMS[head]
    for term in terms:
        if term.name not in known:
            raise RecipeError(f"loss: {term.name!r} isn't for {head} heads; use {', '.join(known)}")

    def loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        _refuse_strangers(labels, logits.shape[1], head)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        batch = LossBatch(logits, labels, weights, labels != IGNORED, head, background)
        return torch.stack([term.weight * known[term.name](batch, term) for term in terms]).sum()

    return loss


@dataclass(frozen=True, eq=False)
class LossBatch:
    """What a term of a loss looks at.

    Attributes:
        logits: (n, k, h, w).
        labels: (n, h, w).
        weights: (n, h, w).
        counted: bool (n, h, w), where something is known.
        head: of the network.
        background: its index; None: there is none.
    """

    logits: Tensor
    labels: Tensor
    weights: Tensor
    counted: Tensor
    head: Head
    background: int | None

    @property
    def truth(self) -> Tensor:
        """(n, k, h, w): 1 where a pixel is of the class, 0 elsewhere."""
        classes = torch.arange(self.logits.shape[1], device=self.labels.device)
        return (self.labels[:, None] == classes[:, None, None]).to(self.logits.dtype)

    def mean(self, errors: Tensor) -> Tensor:
        """Return the mean of (n, h, w) over the pixels that count; 0 if none does."""
        total = torch.where(self.counted, errors, 0).sum()
        return total / self.counted.sum().clamp_min(1)


def _refuse_strangers(labels: Tensor, classes: int, head: Head) -> None:
    strange = (labels >= classes) & (labels != IGNORED) | (labels < 0)
    if head == "sigmoid":
        strange &= labels != NOTHING
    if not strange.any():
        return
    label = int(labels[strange][0])
    if label == NOTHING:
        raise RecipeError(
            "there are pixels of no class, which a softmax can't learn: give the recipe a "
            "background class, or head = 'sigmoid'"
        )
    raise RecipeError(f"there are pixels of label {label}, but the recipe has {classes} classes")


def _cross_entropy(batch: LossBatch, term: LossTerm) -> Tensor:
    """Mean over pixels of w · −ln p of the true class (Ronneberger et al. 2015, equation 1).

    The mean is over pixels, not over weights: twice the weights are twice the loss, as in the
    paper's sum.
    """
    return batch.mean(batch.weights * _surprise_of_softmax(batch))


def _binary_cross_entropy(batch: LossBatch, term: LossTerm) -> Tensor:
    """Mean over pixels and classes of w · −ln of what the class's truth was given."""
    return batch.mean(batch.weights * _surprise_of_sigmoid(batch).mean(dim=1))


def _focal_of_softmax(batch: LossBatch, term: LossTerm) -> Tensor:
    return batch.mean(_focused(_surprise_of_softmax(batch), term.gamma))


def _focal_of_sigmoid(batch: LossBatch, term: LossTerm) -> Tensor:
    return batch.mean(_focused(_surprise_of_sigmoid(batch), term.gamma).mean(dim=1))


def _surprise_of_softmax(batch: LossBatch) -> Tensor:
    """−ln p of the true class, (n, h, w); 0 where a pixel is ignored."""
    return F.cross_entropy(batch.logits, batch.labels, ignore_index=IGNORED, reduction="none")


def _surprise_of_sigmoid(batch: LossBatch) -> Tensor:
    """−ln of the probability of what is true of each class, (n, k, h, w)."""
    return F.binary_cross_entropy_with_logits(batch.logits, batch.truth, reduction="none")


def _focused(surprise: Tensor, gamma: float) -> Tensor:
    """Return (1 − p)^γ · −ln p, p being the probability of the truth: Lin et al. 2017."""
    error = (-torch.expm1(-surprise)).clamp_min(LEAST_ERROR)
    return error**gamma * surprise


def _dice(batch: LossBatch, term: LossTerm) -> Tensor:
    """1 − 2 |p ∩ t| / (|p| + |t|)."""
    both, predicted, true = _overlaps(batch, term)
    return _mean_lack(2 * both, predicted + true)


def _iou(batch: LossBatch, term: LossTerm) -> Tensor:
    """1 − |p ∩ t| / |p ∪ t|."""
    both, predicted, true = _overlaps(batch, term)
    return _mean_lack(both, predicted + true - both)


def _overlaps(batch: LossBatch, term: LossTerm) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over all pixels of the batch that count, of p · t, p and t: each (classes,), px.

    p are the probabilities and t the truth of the classes, without the background unless the term
    takes it, too.
    """
    soft = torch.softmax if batch.head == "softmax" else _each_by_itself
    left_out = None if term.background else batch.background
    kept = [i for i in range(batch.logits.shape[1]) if i != left_out]
    counted = batch.counted[:, None]
    probability = torch.where(counted, soft(batch.logits, 1)[:, kept], 0)
    truth = batch.truth[:, kept]
    pixels = (0, 2, 3)
    return (probability * truth).sum(pixels), probability.sum(pixels), truth.sum(pixels)


def _each_by_itself(logits: Tensor, dim: int) -> Tensor:
    return torch.sigmoid(logits)


def _mean_lack(part: Tensor, whole: Tensor) -> Tensor:
    """Return 1 − part / whole, mean over the classes that are there at all; 0 if none is."""
    there = whole > 0
    lack = torch.where(there, 1 - (part + SMOOTH) / (whole + SMOOTH), 0)
    return lack.sum() / there.sum().clamp_min(1)


TERMS: Mapping[Head, Mapping[str, Callable[[LossBatch, LossTerm], Tensor]]] = {
    "softmax": {
        "cross_entropy": _cross_entropy,
        "dice": _dice,
        "iou": _iou,
        "focal": _focal_of_softmax,
    },
    "sigmoid": {
        "binary_cross_entropy": _binary_cross_entropy,
        "dice": _dice,
        "iou": _iou,
        "focal": _focal_of_sigmoid,
    },
}
"""What can be asked for, by the network's head."""

"""Scores of a network on held-out fields, from pixel counts that add up over tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from wsi_unet.metrics.confusion import (
    ClassPixels,
    class_pixels,
    confusion_matrix,
    nan_mean,
    pixel_error,
)
from wsi_unet.metrics.overlaps import count_overlaps
from wsi_unet.models.spec import ModelSpec
from wsi_unet.training.fields import IGNORED

Counts = NDArray[np.int64]


class PixelCounts:
    """Confusion matrices of predicted and true classes.

    With a softmax head, each pixel has one class: there is one matrix, of all classes and, last, of
    none. With a sigmoid head, each class has a matrix of its own, of no and yes.

    Args:
        spec: spec of the network.

    Attributes:
        matrices: (m, n, n) pixels; row: truth, column: prediction.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._classes = len(spec.classes)
        self._exclusive = spec.head == "softmax"
        self._index_of = np.full(256, self._classes, np.uint8)
        self._index_of[list(spec.label_values)] = np.arange(self._classes, dtype=np.uint8)
        number, side = (1, self._classes + 1) if self._exclusive else (self._classes, 2)
        self.matrices: Counts = np.zeros((number, side, side), np.int64)

    def add(self, truth: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        """Count pixels.

        Args:
            truth: (h, w) class index, `IGNORED` (not counted) or `NOTHING`.
            labels: (label images, h, w), label values, as a predictor returns them.
        """
        valid = truth != IGNORED
        if self._exclusive:
            pairs = [(np.minimum(truth, self._classes), self._index_of[labels[0]])]
        else:
            pairs = [
                ((truth == index).astype(np.uint8), labels[index]) for index in range(self._classes)
            ]
        for matrix, (true, predicted) in zip(self.matrices, pairs, strict=True):
            overlaps = count_overlaps(true, predicted, valid)
            matrix += confusion_matrix(overlaps, range(len(matrix)))

    def classes(self) -> list[ClassPixels]:
        """Return the counts of each class, in the spec's order."""
        if self._exclusive:
            return [class_pixels(self.matrices[0], index) for index in range(self._classes)]
        return [class_pixels(matrix, 1) for matrix in self.matrices]

    def pixel_error(self) -> float:
        """Return the share of pixels with a wrong class; with a sigmoid, its mean over classes."""
        return nan_mean([pixel_error(matrix) for matrix in self.matrices])


@dataclass(frozen=True)
class FieldClassScores:
    """Scores of one class (see `wsi_unet.metrics.confusion.ClassPixels`); NaN if undefined.

    Attributes:
        name: name of the class.
        pixels: pixels of the class in the truth.
        dice: Dice.
        iou: intersection over union.
        precision: precision.
        recall: recall.
    """

    name: str
    pixels: int
    dice: float
    iou: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Scores:
    """Scores over the pixels of all fields together.

    Attributes:
        fields: number of fields.
        pixels: number of pixels compared.
        pixel_error: share of pixels with a wrong class.
        mean_dice: mean Dice over the classes, without the background and without classes that are
            neither in the truth nor in the prediction.
        mean_iou: mean IoU over the same classes.
        classes: scores of each class, in the recipe's order.
    """

    fields: int
    pixels: int
    pixel_error: float
    mean_dice: float
    mean_iou: float
    classes: tuple[FieldClassScores, ...]

    @classmethod
    def from_counts(cls, counts: PixelCounts, spec: ModelSpec, fields: int) -> Scores:
        """Return the scores that follow from counts.

        Args:
            counts: counts of the pixels of all fields.
            spec: spec of the network.
            fields: number of fields.
        """
        pixels = counts.classes()
        scored = [
            FieldClassScores(model_class.name, p.tp + p.fn, p.dice, p.iou, p.precision, p.recall)
            for model_class, p in zip(spec.classes, pixels, strict=True)
        ]
        foreground = [scores for scores in scored if scores.name != spec.background]
        return cls(
            fields=fields,
            pixels=pixels[0].total,
            pixel_error=counts.pixel_error(),
            mean_dice=nan_mean([scores.dice for scores in foreground]),
            mean_iou=nan_mean([scores.iou for scores in foreground]),
            classes=tuple(scored),
        )

    def to_json(self) -> dict[str, JsonValue]:
        """Return the scores for the model card: rounded, `null` where undefined."""
        return {
            "dice": rounded(self.mean_dice),
            "iou": rounded(self.mean_iou),
            "pixel_error": rounded(self.pixel_error),
            "pixels": self.pixels,
            "fields": self.fields,
            "classes": {
                scores.name: {
                    "dice": rounded(scores.dice),
                    "iou": rounded(scores.iou),
                    "precision": rounded(scores.precision),
                    "recall": rounded(scores.recall),
                    "pixels": scores.pixels,
                }
                for scores in self.classes
            },
        }


def rounded(score: float) -> float | None:
    """Return a score rounded to four digits; None if it is NaN.

    >>> rounded(0.123456), rounded(float("nan"))
    (0.1235, None)
    """
    return None if math.isnan(score) else round(score, 4)


def score_columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the journal's columns for scores."""
    return ["pixel_error", "mean_dice", "mean_iou", *(f"dice {name}" for name in classes)]


def score_values(scores: Scores) -> list[float]:
    """Return the scores in the order of `score_columns`."""
    by_class = (class_scores.dice for class_scores in scores.classes)
    return [scores.pixel_error, scores.mean_dice, scores.mean_iou, *by_class]

"""The confusion matrix of classes, and the scores of each class.

For a class c, TP is the number of pixels that are c in both, FP of those that are c in the
prediction only, FN of those that are c in the truth only, and N of all pixels that were compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.metrics.overlaps import Overlaps


def ratio(part: float, whole: float) -> float:
    """Return part / whole, or NaN if the whole is 0.

    >>> ratio(1, 4), ratio(0, 0)
    (0.25, nan)
    """
    return part / whole if whole else math.nan


def nan_mean(values: Sequence[float]) -> float:
    """Return the mean of the values that aren't NaN, or NaN if there are none.

    >>> nan_mean([0.5, math.nan, 1.0])
    0.75
    """
    numbers = [value for value in values if not math.isnan(value)]
    return ratio(math.fsum(numbers), len(numbers))


@dataclass(frozen=True)
class ClassPixels:
    """Pixel counts of one class, and the scores that follow; NaN where there is nothing to score.

    Attributes:
        tp: pixels of the class in both.
        fp: pixels of the class in the prediction only.
        fn: pixels of the class in the truth only.
        total: pixels compared.
    """

    tp: int
    fp: int
    fn: int
    total: int

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN) (Dice 1945); NaN where the class is in neither."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN) (Jaccard 1912), D / (2 - D); NaN where the class is in neither."""
        return ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); NaN where nothing was predicted to be of the class."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); NaN where nothing is of the class."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def pixel_error(self) -> float:
        """(FP + FN) / N: the share of pixels that are of the class in just one of both."""
        return ratio(self.fp + self.fn, self.total)


def confusion_matrix(overlaps: Overlaps, values: Sequence[int]) -> NDArray[np.int64]:
    """Return the counts as a matrix.

    Args:
        overlaps: overlaps of class values; pairs with other values than `values` are left out.
        values: the classes' values, in the order of the rows and columns.

    Returns:
        (k, k): row i, column j is the number of pixels of class i in the truth and class j in the
        prediction.
    """
    index = {value: number for number, value in enumerate(values)}
    matrix = np.zeros((len(values), len(values)), np.int64)
    for truth, prediction, pixels in zip(
        overlaps.truth.tolist(), overlaps.prediction.tolist(), overlaps.pixels.tolist(), strict=True
    ):
        if truth in index and prediction in index:
            matrix[index[truth], index[prediction]] += pixels
    return matrix


def class_pixels(matrix: NDArray[np.int64], number: int) -> ClassPixels:
    """Return the counts of the class in row and column `number` of a confusion matrix."""
    tp = int(matrix[number, number])
    return ClassPixels(
        tp=tp,
        fp=int(matrix[:, number].sum()) - tp,
        fn=int(matrix[number].sum()) - tp,
        total=int(matrix.sum()),
    )


def pixel_error(matrix: NDArray[np.int64]) -> float:
    """Return the share of pixels whose class is wrong; NaN without pixels."""
    total = int(matrix.sum())
    return ratio(total - int(np.trace(matrix)), total)

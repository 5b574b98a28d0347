"""Scores of objects: F1 at IoU 0.5, panoptic quality, aggregated Jaccard index.

All follow from the number of pixels that each object of the truth shares with each object of the
prediction. Label 0 isn't an object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.metrics.confusion import ratio
from wsi_unet.metrics.overlaps import Overlaps

MATCH = 0.5
"""Objects match if their IoU is above this: then each has at most one partner (Kirillov)."""


@dataclass(frozen=True)
class ObjectScores:
    """Scores of objects; NaN where there is nothing to score.

    Attributes:
        truth: number of objects in the truth.
        prediction: number of objects in the prediction.
        matched: number of pairs of objects with an IoU above 0.5.
        f1: 2 TP / (2 TP + FP + FN) over objects, TP being the matched ones; NaN if there are no
            objects in either.
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        sq: segmentation quality: the mean IoU of the matched pairs; NaN if there are none.
        rq: recognition quality, the same number as `f1`.
        pq: panoptic quality, SQ x RQ: the sum of the IoUs of the matched pairs over
            TP + FP/2 + FN/2 (Kirillov et al., "Panoptic Segmentation", CVPR 2019); 0 if nothing
            matches, NaN if there are no objects in either.
        aji: aggregated Jaccard index (Kumar et al., IEEE Trans. Med. Imaging 36, 2017, algorithm
            1): each object of the truth takes the object of the prediction with which its IoU is
            largest (of several, the one with the lowest number; an object of the prediction may
            be taken twice). The sum of their intersections, over the sum of their unions and of
            the pixels of predicted objects that weren't taken. NaN if there are no objects in
            either.
    """

    truth: int
    prediction: int
    matched: int
    f1: float
    precision: float
    recall: float
    sq: float
    rq: float
    pq: float
    aji: float


def score_objects(overlaps: Overlaps) -> ObjectScores:
    """Score the objects of a prediction.

    Args:
        overlaps: overlaps of object numbers (0 for no object) over all pixels that are compared.
    """
    truths, truth_of, truth_area = _areas(overlaps.truth, overlaps.pixels)
    predictions, prediction_of, prediction_area = _areas(overlaps.prediction, overlaps.pixels)
    both = (overlaps.truth > 0) & (overlaps.prediction > 0)
    i, j, shared = truth_of[both], prediction_of[both], overlaps.pixels[both]
    union = truth_area[i] + prediction_area[j] - shared
    # Compared as whole numbers, so that an IoU of exactly 1/2 doesn't match.
    matches = 2 * shared > union
    matched = int(matches.sum())
    number_of_truths = int((truths > 0).sum())
    number_of_predictions = int((predictions > 0).sum())
    iou = math.fsum(shared[matches] / union[matches])
    f1 = ratio(2 * matched, number_of_truths + number_of_predictions)
    return ObjectScores(
        truth=number_of_truths,
        prediction=number_of_predictions,
        matched=matched,
        f1=f1,
        precision=ratio(matched, number_of_predictions),
        recall=ratio(matched, number_of_truths),
        sq=ratio(iou, matched),
        rq=f1,
        pq=ratio(2 * iou, number_of_truths + number_of_predictions),
        aji=_aji(
            i,
            shared,
            union,
            j,
            np.where(truths > 0, truth_area, 0),
            np.where(predictions > 0, prediction_area, 0),
        ),
    )


def _areas(
    labels: NDArray[np.int64], pixels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.int64]]:
    """Return the labels that occur, the index of each pair's label in them, and their areas, px."""
    occurring, index = np.unique(labels, return_inverse=True)
    areas = np.zeros(len(occurring), np.int64)
    np.add.at(areas, index, pixels)
    return occurring, index, areas


def _aji(
    i: NDArray[np.intp],
    shared: NDArray[np.int64],
    union: NDArray[np.int64],
    j: NDArray[np.intp],
    truth_area: NDArray[np.int64],
    prediction_area: NDArray[np.int64],
) -> float:
    """Return the aggregated Jaccard index.

    Args:
        i: (n,) indices of the truth's objects, one for each pair of objects that share pixels.
        shared: (n,) px that the two share.
        union: (n,) px that either covers.
        j: (n,) indices of the prediction's objects.
        truth_area: px of each object of the truth.
        prediction_area: px of each object of the prediction.
    """
    order = np.lexsort((j, -(shared / union), i))
    best = order[np.diff(i[order], prepend=-1) > 0]
    alone = np.ones(len(truth_area), np.bool_)
    alone[i[best]] = False
    untaken = np.ones(len(prediction_area), np.bool_)
    untaken[j[best]] = False
    unions = union[best].sum() + truth_area[alone].sum() + prediction_area[untaken].sum()
    return ratio(int(shared[best].sum()), int(unions))

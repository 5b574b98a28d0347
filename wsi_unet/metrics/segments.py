"""Scores of cells that membranes separate: V_rand, V_info and the Rand error.

Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for
connectomics", Frontiers in Neuroanatomy 9:142, 2015: the scores of the ISBI-2012 challenge since
its revision. Let n be the number of pixels that lie in a segment of the truth
("foreground-restricted": membranes of the truth don't count), p_ij the share of them in segment i
of the prediction and j of the truth, s_i = sum_j p_ij and t_j = sum_i p_ij. A pixel that lies in no
segment of the prediction (a membrane) is a segment of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.metrics.confusion import ratio
from wsi_unet.metrics.overlaps import Overlaps


@dataclass(frozen=True)
class SegmentScores:
    """How well segments agree with the truth: 1 is best, NaN without pixels.

    Attributes:
        v_rand: sum p_ij^2 / (sum s_i^2 / 2 + sum t_j^2 / 2): the F-score of the next two.
        v_rand_split: sum p_ij^2 / sum t_j^2: how likely two pixels of one segment of the truth
            are in one of the prediction; low if segments are split.
        v_rand_merge: sum p_ij^2 / sum s_i^2: how likely two pixels of one segment of the
            prediction are in one of the truth; low if segments are merged.
        v_info: I / (H(S) / 2 + H(T) / 2), I being the mutual information of prediction S and
            truth T and H the entropy; 1 where both are one segment.
        v_info_split: I / H(S); low if segments are split.
        v_info_merge: I / H(T); low if segments are merged.
        rand_error: 1 - F-score of pairs of two different pixels: of V_rand with N (N - 1) in place
            of N^2 for each sum ("adapted Rand error"). NaN if no two pixels lie together in either.
            Before its revision, the challenge took it without thinning the membranes.
    """

    v_rand: float
    v_rand_split: float
    v_rand_merge: float
    v_info: float
    v_info_split: float
    v_info_merge: float
    rand_error: float


def score_segments(overlaps: Overlaps) -> SegmentScores:
    """Score a segmentation.

    Args:
        overlaps: overlaps of segment numbers (0 for none) over all pixels that are compared.
    """
    kept = overlaps.select(overlaps.truth > 0)
    cells = kept.select(kept.prediction > 0)
    total = kept.total
    single = total - cells.total
    joint = cells.pixels.tolist()
    prediction = _sums(cells.prediction, cells.pixels)
    truth = _sums(kept.truth, kept.pixels)
    # Whole numbers, as Python's have no end: the fourth power of a slide's side is beyond 2^63.
    agree = sum(count * count for count in joint) + single
    together = sum(count * count for count in prediction) + single
    belong = sum(count * count for count in truth)
    information = _Information(joint, prediction, truth, single, total)
    return SegmentScores(
        v_rand=ratio(2 * agree, together + belong),
        v_rand_split=ratio(agree, belong),
        v_rand_merge=ratio(agree, together),
        v_info=information.share((information.prediction + information.truth) / 2),
        v_info_split=information.share(information.prediction),
        v_info_merge=information.share(information.truth),
        rand_error=1 - ratio(2 * (agree - total), together + belong - 2 * total),
    )


def _sums(labels: NDArray[np.int64], pixels: NDArray[np.int64]) -> list[int]:
    _, indices = np.unique(labels, return_inverse=True)
    return [int(count) for count in np.bincount(indices, weights=pixels)]


class _Information:
    """Entropies of prediction and truth and their mutual information, in nats."""

    def __init__(
        self, joint: list[int], prediction: list[int], truth: list[int], single: int, total: int
    ) -> None:
        self.total = total
        self.prediction = _entropy(prediction, single, total)
        self.truth = _entropy(truth, 0, total)
        self.mutual = self.prediction + self.truth - _entropy(joint, single, total)

    def share(self, entropy: float) -> float:
        """Return the mutual information divided by an entropy.

        An entropy of 0 means one segment: the share is 1 if the other entropy is 0 as well, else 0.
        """
        if not self.total:
            return math.nan
        if entropy > 0:
            return min(1.0, max(0.0, self.mutual / entropy))
        return 1.0 if self.prediction + self.truth == 0 else 0.0


def _entropy(counts: list[int], single: int, total: int) -> float:
    """Return the entropy of segments, nats.

    Args:
        counts: pixels of each segment of several pixels.
        single: number of segments of one pixel.
        total: pixels of all segments.
    """
    if not total:
        return 0.0
    shares = [count / total for count in counts if count]
    of_singles = single / total * math.log(total) if single else 0.0
    return of_singles - math.fsum(share * math.log(share) for share in shares) + 0.0


def label_segments(values: NDArray[Any]) -> NDArray[np.int32]:
    """Number the 4-connected components of equal value from 1; value 0 is membrane.

    Membranes are thin and may run diagonally: components that only touch at corners stay two.
    """
    from skimage.measure import label

    segments: NDArray[np.int32] = label(  # type: ignore[no-untyped-call]
        np.asarray(values), background=0, connectivity=1
    ).astype(np.int32)
    return segments


def thin_membranes(segments: NDArray[np.int32]) -> NDArray[np.int32]:
    """Grow segments until the membranes between them are one pixel wide.

    A watershed is flooded from the segments over the Euclidean distance to the nearest of them;
    pixels where the floods of two segments would meet stay membrane, 0. So it doesn't count how
    wide a membrane was drawn, only what it separates.

    Args:
        segments: (h, w) numbers from 1; 0 is membrane.
    """
    from scipy import ndimage
    from skimage.segmentation import watershed

    if not segments.any():
        return segments
    distance = ndimage.distance_transform_edt(segments == 0)
    grown: NDArray[np.int32] = watershed(  # type: ignore[no-untyped-call]
        distance, segments, connectivity=1, watershed_line=True
    ).astype(np.int32)
    return grown

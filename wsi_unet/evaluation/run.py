"""`evaluate`: from a prediction and its truth to scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Unpack

from dask.delayed import Delayed

from wsi_unet import logs
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.errors import OptionError
from wsi_unet.evaluation.map_reduce import MapReduce
from wsi_unet.evaluation.options import EvaluationArguments, EvaluationOptions, needs_cluster
from wsi_unet.evaluation.pairs import Comparison, Pair, open_pair
from wsi_unet.evaluation.report import Evaluation
from wsi_unet.evaluation.scoring import evaluate_classes, evaluate_objects, evaluate_segments
from wsi_unet.geometry import Box
from wsi_unet.ground_truth.annotation_rasters import annotation_path
from wsi_unet.ground_truth.label_rasters import LabelsLike


def evaluate(
    prediction: LabelsLike,
    truth: LabelsLike,
    *,
    cluster: ClusterOptions | None = None,
    **options: Unpack[EvaluationArguments],
) -> Evaluation:
    """Compare a prediction with the truth, on the prediction's pixels.

    >>> evaluation = evaluate("slide.ome.zarr", "annotations.geojson")    # doctest: +SKIP
    >>> evaluation.mean_dice, evaluation.to_json()                        # doctest: +SKIP

    Args:
        prediction: a label OME-Zarr of wsi-unet, a PNG or TIFF, or what `open_labels` returned.
        truth: labels in one of these forms, or GeoJSON or ASAP XML with outlines in
            full-resolution px of the slide.
        cluster: worker processes or a cluster that count. None, and workers "auto", stand for
            threads of this process. Other processes open prediction and truth themselves, so these
            must be files or URLs that they can see.
        options: see `EvaluationOptions`.

    Raises:
        EvaluationError: they can't be read or compared, or there is nothing to compare.
        AnnotationError: annotations can't be read, or lie outside of the slide.
        OptionError: an option is unusable, or the cluster is, or it can't see the files.
        ClusterError: the cluster can't be started, or went away.
        OutputError: a folder isn't an output of wsi-unet, or has no such label group.
    """
    given, cluster = EvaluationOptions(**options), cluster or ClusterOptions()
    if needs_cluster(cluster) and given.em:
        raise OptionError(
            "`em` scores segments as a whole, in this process; leave out `workers` and `scheduler`",
            option="em",
        )
    comparison = Comparison(
        prediction=prediction,
        truth=truth,
        label=given.label,
        truth_label=given.truth_label,
        ignore=tuple(given.ignore),
        region=given.region,
        within=None if given.within is None else annotation_path(given.within),
        objects=given.kind == "objects",
    )
    with open_comparison(comparison, cluster) as (pair, map_reduce):
        if given.kind == "objects":
            scores = evaluate_objects(pair, given.tolerance, map_reduce)
        elif given.kind == "segments":
            scores = evaluate_segments(pair, given.tolerance)
        else:
            scores = evaluate_classes(pair, given.classes or {}, given.tolerance, map_reduce)
    pixels = Box.from_shape(pair.prediction.grid.shape).area
    logs.event(
        "evaluated", prediction=pair.prediction.name, truth=pair.truth.name, pixels=scores["pixels"]
    )
    return Evaluation(
        prediction=pair.prediction.name,
        truth=pair.truth.name,
        kind=given.kind,
        pixels_left_out=pixels - scores["pixels"],
        tolerance=given.tolerance,
        truth_annotations=pair.truth.annotations,
        within_annotations=None if pair.within is None else pair.within.facts,
        **scores,
    )


@contextmanager
def open_comparison(
    comparison: Comparison, cluster: ClusterOptions
) -> Iterator[tuple[Pair, MapReduce]]:
    """Open prediction and truth, and yield them with what counts their boxes.

    Raises:
        OptionError: the cluster can't be used, or can't see the files, or the labels aren't files.
        ClusterError: it can't be started, or went away.
        WsiUnetError: see `open_pair`.
    """
    if not needs_cluster(cluster):
        pair = open_pair(comparison)
        yield pair, MapReduce(lambda: pair, partial(Delayed.compute, scheduler="threads"))
        return
    # Dask's cluster, and torch, take seconds to import that most comparisons don't need.
    from wsi_unet.evaluation.cluster import open_on_cluster

    with open_on_cluster(comparison, cluster) as opened:
        yield opened

"""`wsi-unet evaluate`: how well a result agrees with the ground truth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

import wsi_unet
from wsi_unet.wording import count
from wsi_unet_cli.common.cluster_options import cluster_options, logging_to
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.options import json_option, parse_region, verbose_option
from wsi_unet_cli.common.output import print_facts, print_json, print_table, score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsi_unet import Evaluation
    from wsi_unet.dask_cluster.options import ClusterOptions
    from wsi_unet.evaluation.report import ObjectSource
    from wsi_unet.ground_truth.annotation_rasters import AnnotationFacts
    from wsi_unet.ground_truth.grids import Region

OBJECT_SOURCES: Mapping[ObjectSource, str] = {
    "stored": "objects as stored",
    "components": "connected components",
    "values": "values of the image",
    "annotations": "annotations",
}

MAX_CONFUSION_CLASSES = 8
"""Number of classes up to which the confusion matrix is shown."""

EPILOG = """\
\b
Examples:
  wsi-unet evaluate slide.ome.zarr annotations.geojson
  wsi-unet evaluate slide.ome.zarr truth.ome.zarr --within regions.geojson --json
  wsi-unet evaluate predicted.png truth.png --classes cell=1:255 --ignore 128
  wsi-unet evaluate nuclei.tif truth.png --instances
  wsi-unet evaluate new.ome.zarr old.ome.zarr --truth-label nuclei.edited --instances
  wsi-unet evaluate cells.png membranes.png --em
  wsi-unet evaluate s3://bucket/slide.ome.zarr truth.geojson --scheduler tcp://head:8786

docs/reference/evaluation.md defines every number. n/a means that there is nothing to score, such as
a class that is in neither; means leave it out.
"""


def parse_tolerance(ctx: click.Context, param: click.Parameter, value: str) -> float | None:
    """Parse a number of pixels, 0 or more; `none` becomes None."""
    if value == "none":
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise click.BadParameter(f"{value!r} is neither a number of pixels, 0 or more, nor 'none'.")
    return number


@click.command(epilog=EPILOG, short_help="Score a result against the ground truth.")
@click.argument("prediction", metavar="PREDICTION")
@click.argument("truth", metavar="TRUTH")
@click.option(
    "--instances",
    is_flag=True,
    help="Score objects: F1 at IoU 0.5, PQ and AJI. Objects of a result are those that `wsi-unet "
    "objects` has stored, or else the connected components of each class; of an image, the pixels "
    "of one value; of annotations, each outline.",
)
@click.option(
    "--em",
    is_flag=True,
    help="Score cells that membranes (value 0) separate: V_rand and V_info with thinned membranes, "
    "and the Rand error.",
)
@click.option(
    "--classes",
    metavar="NAME=V[:T],...",
    help="Which class is which: its value or name in PREDICTION and, where it differs, in TRUTH.  "
    "[default: by equal names, or else by equal values]",
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="VALUE|NAME",
    help="Leave out pixels with this value or class in TRUTH; may be given several times.",
)
@click.option(
    "--region",
    callback=parse_region,
    metavar="X,Y,W,H",
    help="Compare only this part, in full-resolution pixels.",
)
@click.option(
    "--within",
    metavar="ANNOTATIONS",
    help="Compare only inside these outlines (GeoJSON or ASAP XML), in full-resolution pixels.",
)
@click.option(
    "--tolerance",
    default="2",
    show_default=True,
    callback=parse_tolerance,
    metavar="PX|none",
    help="Distance up to which boundaries agree, in pixels of PREDICTION; none leaves boundaries "
    "out.",
)
@click.option("--label", metavar="NAME", help="Label group of PREDICTION, if it holds several.")
@click.option(
    "--truth-label",
    metavar="NAME",
    help="Label group of TRUTH, if it holds several. Of either, NAME.edited stands for its objects "
    "as they were corrected (`wsi-unet import-annotations`).",
)
@cluster_options
@json_option
@verbose_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    prediction: str,
    truth: str,
    instances: bool,
    em: bool,
    classes: str | None,
    ignore: tuple[str, ...],
    region: Region | None,
    within: str | None,
    tolerance: float | None,
    label: str | None,
    truth_label: str | None,
    as_json: bool,
    log_file: str | None,
    cluster: ClusterOptions,
) -> None:
    """Compare the labels of PREDICTION with TRUTH, on the pixels of PREDICTION.

    PREDICTION is a result of segment (a label OME-Zarr) or an image (PNG, TIFF) of class values.
    TRUTH is one of these, or annotations with class names in full-resolution pixels: GeoJSON, as
    QuPath exports it, or ASAP XML. If TRUTH has another pixel size, each pixel of PREDICTION is
    compared with the pixel of TRUTH that is nearest by coordinates.
    """
    from wsi_unet.evaluation.class_mapping import parse_class_id, parse_classes

    with logging_to(log_file, verbose=ctx.meta[VERBOSE]):
        evaluation = wsi_unet.evaluate(
            prediction,
            truth,
            instances=instances,
            em=em,
            classes=None if classes is None else parse_classes(classes),
            ignore=[parse_class_id(key) for key in ignore],
            region=region,
            within=within,
            tolerance=tolerance,
            label=label,
            truth_label=truth_label,
            cluster=cluster,
        )
    if as_json:
        print_json(evaluation.to_json())
    else:
        _show(evaluation)


def _show(evaluation: Evaluation) -> None:
    print_table(
        ("value", "class", "truth px", "predicted px", "Dice", "IoU", "precision", "recall",
         "pixel error", "boundary F1"),
        [
            (
                str(item.value),
                item.name,
                str(item.truth_pixels),
                str(item.prediction_pixels),
                *map(
                    score,
                    (item.dice, item.iou, item.precision, item.recall, item.pixel_error,
                     item.boundary_f1),
                ),
            )
            for item in evaluation.classes
        ],
    )  # fmt: skip
    _show_confusion(evaluation)
    print_facts(
        "overall",
        [
            ("compared", f"{evaluation.pixels} px, {evaluation.pixels_left_out} left out"),
            ("not predicted", _describe_unpredicted(evaluation)),
            ("pixel error", score(evaluation.pixel_error)),
            ("mean Dice", f"{score(evaluation.mean_dice)} (without value 0)"),
            ("mean IoU", score(evaluation.mean_iou)),
            ("boundary F1", _describe_boundaries(evaluation)),
            ("truth", _describe_annotations(evaluation.truth_annotations)),
            ("within", _describe_annotations(evaluation.within_annotations)),
        ],
    )
    _show_objects(evaluation)
    _show_segments(evaluation)


def _show_confusion(evaluation: Evaluation) -> None:
    """Show the confusion matrix; with many classes, only the JSON document has it."""
    if evaluation.kind != "classes" or not 2 <= len(evaluation.classes) <= MAX_CONFUSION_CLASSES:
        return
    names = [item.name for item in evaluation.classes]
    print_table(
        ("truth px \\ predicted as", *names),
        [(name, *map(str, row)) for name, row in zip(names, evaluation.confusion, strict=True)],
    )


def _describe_unpredicted(evaluation: Evaluation) -> str:
    if not evaluation.pixels_not_predicted:
        return ""
    return (
        f"{evaluation.pixels_not_predicted} of those left out, "
        f"{evaluation.class_pixels_not_predicted} of them in a class of the truth"
    )


def _describe_boundaries(evaluation: Evaluation) -> str:
    if evaluation.tolerance is None:
        return ""
    return f"{score(evaluation.mean_boundary_f1)} within {evaluation.tolerance:g} px"


def _describe_annotations(facts: AnnotationFacts | None) -> str:
    if facts is None:
        return ""
    words = f"{count(facts.annotations, 'annotation')} of {count(facts.polygons, 'polygon')}"
    return f"{words}; {facts.left_out}" if facts.left_out else words


def _show_objects(evaluation: Evaluation) -> None:
    if evaluation.objects is None:
        return
    objects = evaluation.objects
    print_facts(
        "objects",
        [
            ("truth", _describe_objects(objects.truth, evaluation.truth_objects)),
            ("predicted", _describe_objects(objects.prediction, evaluation.prediction_objects)),
            ("matched", f"{objects.matched} (IoU above 0.5)"),
            ("F1", score(objects.f1)),
            ("precision", score(objects.precision)),
            ("recall", score(objects.recall)),
            ("PQ", f"{score(objects.pq)} (SQ {score(objects.sq)}, RQ {score(objects.rq)})"),
            ("AJI", score(objects.aji)),
        ],
    )


def _describe_objects(number: int, source: ObjectSource | None) -> str:
    return str(number) if source is None else f"{number} ({OBJECT_SOURCES[source]})"


def _show_segments(evaluation: Evaluation) -> None:
    if evaluation.segments is None:
        return
    segments = evaluation.segments
    print_facts(
        "segments",
        [
            (
                "V_rand",
                _with_parts(segments.v_rand, segments.v_rand_split, segments.v_rand_merge),
            ),
            (
                "V_info",
                _with_parts(segments.v_info, segments.v_info_split, segments.v_info_merge),
            ),
            ("Rand error", f"{score(segments.rand_error)} (membranes not thinned)"),
        ],
    )


def _with_parts(whole: float, split: float, merge: float) -> str:
    return f"{score(whole)} (split {score(split)}, merge {score(merge)}; membranes thinned)"

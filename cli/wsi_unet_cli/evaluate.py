"""`wsi-unet evaluate`: how well a result agrees with the truth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

import wsi_unet
from wsi_unet_cli.common.cluster_options import cluster_options, logging_to
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.options import Region, json_option, parse_region, verbose_option
from wsi_unet_cli.common.output import print_facts, print_json, print_table

if TYPE_CHECKING:
    from wsi_unet import Evaluation
    from wsi_unet.dask_cluster.options import ClusterOptions
    from wsi_unet.ground_truth.annotation_rasters import AnnotationFacts

WIDEST_CONFUSION = 8
"""Classes of which a confusion matrix is shown."""

EPILOG = """\
\b
Examples:
  wsi-unet evaluate slide.ome.zarr annotations.geojson
  wsi-unet evaluate slide.ome.zarr truth.ome.zarr --within regions.geojson --json
  wsi-unet evaluate predicted.png truth.png --classes cell=1:255 --ignore 128
  wsi-unet evaluate nuclei.tif truth.png --instances
  wsi-unet evaluate cells.png membranes.png --em
  wsi-unet evaluate s3://bucket/slide.ome.zarr truth.geojson --scheduler tcp://head:8786

Every number is defined in docs/evaluation.md; n/a is a score of nothing, such as of a class that is
in neither, and is left out of means.
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
        raise click.BadParameter(f"{value!r} is neither a number of pixels nor 'none'.")
    return number


@click.command(epilog=EPILOG, short_help="Score a result against the truth.")
@click.argument("prediction", metavar="PREDICTION")
@click.argument("truth", metavar="TRUTH")
@click.option(
    "--instances",
    is_flag=True,
    help="Score objects: F1 at IoU 0.5, PQ and AJI. Values of images are the numbers of objects; "
    "of class labels, connected parts are the objects; every annotation is one.",
)
@click.option(
    "--em",
    is_flag=True,
    help="Score cells that membranes (value 0) part: V_rand and V_info after border thinning, "
    "Rand error.",
)
@click.option(
    "--classes",
    metavar="NAME=V[:T],...",
    help="Which class is which: its value or name in PREDICTION and, where it differs, in TRUTH.  "
    "[default: equal names, else equal values]",
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="VALUE|NAME",
    help="Pixels with this value or class in TRUTH aren't compared; may be given several times.",
)
@click.option(
    "--region",
    callback=parse_region,
    metavar="X,Y,W,H",
    help="Compare this part only, in full-resolution pixels.",
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
    help="Up to which distance boundaries agree, in pixels of PREDICTION; none to do without.",
)
@click.option("--label", metavar="NAME", help="Which labels, if PREDICTION holds several.")
@click.option("--truth-label", metavar="NAME", help="Which labels, if TRUTH holds several.")
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

    PREDICTION is a result of segment (a label OME-Zarr) or an image (PNG, TIFF) of class values;
    TRUTH is the same, or annotations with class names in full-resolution pixels: GeoJSON, as QuPath
    exports it, or ASAP XML. A truth with other pixels is brought to those of PREDICTION by its
    coordinates.
    """
    from wsi_unet.evaluation.classes import parse_classes, parse_key

    with logging_to(log_file, verbose=ctx.meta[VERBOSE]):
        found = wsi_unet.evaluate(
            prediction,
            truth,
            instances=instances,
            em=em,
            classes=None if classes is None else parse_classes(classes),
            ignore=[parse_key(key) for key in ignore],
            region=region,
            within=within,
            tolerance=tolerance,
            label=label,
            truth_label=truth_label,
            cluster=cluster,
        )
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)


def _show(found: Evaluation) -> None:
    print_table(
        ("value", "class", "truth px", "predicted px", "Dice", "IoU", "precision", "recall",
         "pixel error", "boundary F1"),
        [
            (
                str(one.value),
                one.name,
                str(one.truth_pixels),
                str(one.prediction_pixels),
                *map(
                    score,
                    (one.dice, one.iou, one.precision, one.recall, one.pixel_error,
                     one.boundary_f1),
                ),
            )
            for one in found.classes
        ],
    )  # fmt: skip
    _show_confusion(found)
    print_facts(
        "overall",
        [
            ("compared", f"{found.pixels} px, {found.pixels_left_out} left out"),
            ("pixel error", score(found.pixel_error)),
            ("mean Dice", f"{score(found.mean_dice)} (without value 0)"),
            ("mean IoU", score(found.mean_iou)),
            ("boundary F1", _boundaries(found)),
            ("truth", _drawn(found.truth_annotations)),
            ("within", _drawn(found.within_annotations)),
        ],
    )
    _show_objects(found)
    _show_segments(found)


def _show_confusion(found: Evaluation) -> None:
    """Show which class was taken for which; of many classes it is in the JSON document."""
    if found.kind != "classes" or not 2 <= len(found.classes) <= WIDEST_CONFUSION:
        return
    names = [one.name for one in found.classes]
    print_table(
        ("truth px \\ predicted as", *names),
        [(name, *map(str, row)) for name, row in zip(names, found.confusion, strict=True)],
    )


def _boundaries(found: Evaluation) -> str:
    if found.tolerance is None:
        return ""
    return f"{score(found.mean_boundary_f1)} within {found.tolerance:g} px"


def _drawn(facts: AnnotationFacts | None) -> str:
    if facts is None:
        return ""
    return f"{facts.annotations} annotations of {facts.polygons} polygons"


def _show_objects(found: Evaluation) -> None:
    if found.objects is None:
        return
    objects = found.objects
    print_facts(
        "objects",
        [
            ("truth", str(objects.truth)),
            ("predicted", str(objects.prediction)),
            ("matched", f"{objects.matched} (IoU above 0.5)"),
            ("F1", score(objects.f1)),
            ("precision", score(objects.precision)),
            ("recall", score(objects.recall)),
            ("PQ", f"{score(objects.pq)} (SQ {score(objects.sq)}, RQ {score(objects.rq)})"),
            ("AJI", score(objects.aji)),
        ],
    )


def _show_segments(found: Evaluation) -> None:
    if found.segments is None:
        return
    segments = found.segments
    print_facts(
        "segments",
        [
            ("V_rand", _parts(segments.v_rand, segments.v_rand_split, segments.v_rand_merge)),
            ("V_info", _parts(segments.v_info, segments.v_info_split, segments.v_info_merge)),
            ("Rand error", f"{score(segments.rand_error)} (borders as they are)"),
        ],
    )


def _parts(together: float, split: float, merge: float) -> str:
    return f"{score(together)} (split {score(split)}, merge {score(merge)}; borders thinned)"


def score(value: float) -> str:
    """Write a score from 0 to 1; a score of nothing is n/a.

    >>> score(0.91239), score(float("nan"))
    ('0.9124', 'n/a')
    """
    return "n/a" if math.isnan(value) else f"{value:.4f}"

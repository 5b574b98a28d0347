"""The table of measurements: one row per result, label group, region and class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wsi_unet.annotations.annotation import UNCLASSIFIED, Annotation
from wsi_unet.ground_truth.annotation_rasters import AnnotationRaster
from wsi_unet.measuring.areas import RegionPixels
from wsi_unet.measuring.object_statistics import RegionObjects
from wsi_unet.measuring.sources import MeasuredLabels


def make_rows(
    labels: MeasuredLabels,
    regions: AnnotationRaster,
    pixels: RegionPixels,
    objects: RegionObjects | None,
) -> pa.Table:
    """Return the rows of a label group: a row per region and class, in this order.

    Args:
        labels: the labels.
        regions: the regions.
        pixels: their areas.
        objects: their objects; None leaves the columns out.
    """
    annotations, values = regions.annotations, sorted(labels.classes)
    classes = len(values)
    rows = len(annotations) * classes
    names = [_name_region(each, number) for number, each in enumerate(annotations, 1)]
    columns: dict[str, pa.Array] = {
        "result": pa.array([_as_utf8(labels.result)] * rows, pa.string()),
        "label": pa.array([labels.source.label] * rows, pa.string()),
        "region": pa.array(np.repeat(np.arange(1, len(annotations) + 1), classes), pa.int64()),
        "region_name": _repeat(names, classes),
        "region_class": _repeat([_class_of(each) for each in annotations], classes),
        "class": pa.array(
            [labels.classes[value] for value in values] * len(annotations), pa.string()
        ),
    }
    columns |= _describe_areas(pixels, labels.pixel_area)
    if objects is not None:
        without = np.isin(values, [*labels.boundaries])
        columns |= _describe_objects(objects, pixels, labels.pixel_area, without)
    return pa.table(columns)


def _describe_areas(pixels: RegionPixels, pixel_area: float | None) -> dict[str, pa.Array]:
    predicted, on_slide = (
        np.repeat(each[:, None], pixels.in_class.shape[1], axis=1)
        for each in (pixels.predicted, pixels.on_slide)
    )
    unit = "px" if pixel_area is None else "mm2"
    return {
        f"region_area_{unit}": pa.array(_measure_area(predicted, pixel_area).ravel()),
        "region_predicted": _divide(predicted, on_slide),
        f"class_area_{unit}": pa.array(_measure_area(pixels.in_class, pixel_area).ravel()),
        "share": _divide(pixels.in_class, predicted),
    }


def _describe_objects(
    objects: RegionObjects,
    pixels: RegionPixels,
    pixel_area: float | None,
    without: NDArray[np.bool_],
) -> dict[str, pa.Array]:
    """Return the columns of objects; those of classes `without` objects are null."""
    null = np.broadcast_to(without, objects.objects.shape)
    columns = {"objects": pa.array(objects.objects.ravel(), mask=null.ravel())}
    if pixel_area is not None:
        area = np.where(null, 0, _measure_area(pixels.predicted, pixel_area)[:, None])
        columns["objects_per_mm2"] = _divide(objects.objects, area)
    for name, mean in objects.means.items():
        columns[f"{name}_mean"] = pa.array(mean.ravel(), from_pandas=True)
        columns[f"{name}_median"] = pa.array(objects.medians[name].ravel(), from_pandas=True)
    return columns


def _measure_area(pixels: NDArray[np.int64], pixel_area: float | None) -> NDArray[Any]:
    """Return areas in mm²; the numbers of pixels where their area (µm²) isn't known."""
    return pixels if pixel_area is None else pixels * pixel_area / 1e6


def _divide(numbers: NDArray[Any], by: NDArray[Any]) -> pa.Array:
    """Return ratios; null where the divisor is 0."""
    ratios = np.full(numbers.shape, np.nan)
    np.divide(numbers, by, out=ratios, where=by > 0)
    return pa.array(ratios.ravel(), from_pandas=True)


def _repeat(texts: Sequence[str | None], times: int) -> pa.Array:
    return pa.array([text for text in texts for _ in range(times)], pa.string())


def _name_region(region: Annotation, number: int) -> str:
    """Return a region's own name, or else its class, or else its number."""
    return region.title or _class_of(region) or f"region {number}"


def _class_of(region: Annotation) -> str | None:
    return None if region.name == UNCLASSIFIED else region.name


def _as_utf8(text: str) -> str:
    """Return a path as text that Arrow takes; bytes that aren't UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()

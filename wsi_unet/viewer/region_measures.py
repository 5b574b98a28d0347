"""What a region that was drawn on the page holds: the numbers of `measure`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from wsi_unet.annotations.geojson import parse_geojson
from wsi_unet.errors import AnnotationError, InputError
from wsi_unet.ground_truth.annotation_rasters import AnnotationRaster
from wsi_unet.measuring.areas import count_pixels
from wsi_unet.measuring.object_statistics import measure_objects
from wsi_unet.measuring.sources import open_result
from wsi_unet.measuring.table import make_rows
from wsi_unet.viewer.viewed import ViewedSlide

REGIONS = Path("regions of the page")
"""What messages call them."""


def measure_regions(viewed: ViewedSlide, geojson: bytes) -> list[dict[str, Any]]:
    """Return what `wsi_unet.measure` says of regions: a row per label group, region and class.

    Args:
        viewed: the slide.
        geojson: the regions, in px of the slide.

    Raises:
        InputError: there is no result, or the regions aren't any.
        OutputError: the labels aren't finished, or are damaged.
    """
    if viewed.store is None:
        raise InputError("there is no result here whose labels could be measured")
    annotations = parse_geojson(REGIONS, geojson)
    if not annotations.annotations:
        raise AnnotationError(f"{REGIONS}: none of them covers an area; draw another one")
    rows: list[dict[str, Any]] = []
    for group, objects in zip(viewed.groups, viewed.objects, strict=True):
        (labels,) = open_result(viewed.store.location, group.name, areas_only=objects is None)
        raster = AnnotationRaster(REGIONS, annotations, labels.grid)
        pixels = count_pixels(labels, raster)
        found = None if labels.objects is None else measure_objects(labels.objects, labels, raster)
        rows += make_rows(labels, raster, pixels, found).drop_columns("result").to_pylist()
    return [{name: _to_json(value) for name, value in row.items()} for row in rows]


def _to_json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

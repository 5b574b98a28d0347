"""Synthetic labels and annotations for the tests of evaluation and training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, merge_boxes
from wsi_unet.labels.layout import create_labels, ensure_root, mark_finished
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.progress import BlockMarker, Progress, RunRecord
from wsi_unet.labels.pyramid import Pyramid, reduce_mode
from wsi_unet.labels.writer import build_tail, write_block
from wsi_unet.predicted_area import PredictedArea
from wsi_unet.slides.tissue.mask import mask_digest
from wsi_unet.storage.local_store import LocalStore

FINISHED = "2026-01-02T03:04:05+00:00"


@dataclass(frozen=True)
class NamedValue:
    value: int
    name: str
    color: str = "#2a6fdb"


def blobs(shape: tuple[int, int], seed: int = 0, values: int = 3) -> NDArray[np.uint8]:
    """Return labels from 0 in patches of some pixels, with single pixels between them."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, values, (-(-shape[0] // 9), -(-shape[1] // 9)), np.uint8)
    labels = coarse.repeat(9, 0).repeat(9, 1)[: shape[0], : shape[1]].copy()
    labels[random.random(shape) < 0.1] = 1
    return labels


def rectangle(box: Box) -> list[list[list[int]]]:
    """Return the GeoJSON coordinates of a box."""
    corners = [(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)]
    return [[[x, y] for x, y in [*corners, corners[0]]]]


def write_geojson(path: Path, features: Sequence[tuple[str | None, Any]]) -> Path:
    """Write polygons (coordinates) with class names, as QuPath does."""
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {
                        "type": "Feature",
                        "geometry": {"type": "Polygon", "coordinates": coordinates},
                        "properties": {"objectType": "annotation"}
                        | ({"classification": {"name": name}} if name else {}),
                    }
                    for name, coordinates in features
                ],
            }
        )
    )
    return path


def write_store(
    path: Path,
    labels: NDArray[np.uint8],
    *,
    classes: tuple[str, ...] = ("background", "nucleus", "tumour"),
    mpp: tuple[float, float] | None = (0.5, 0.5),
    downsample: tuple[float, float] = (1.0, 1.0),
    slide: str = "a slide",
    slide_shape: tuple[int, int] | None = None,
    finished: bool = True,
    regions: list[list[int]] | None = None,
    tissue: NDArray[np.bool_] | None = None,
    name: str = "nuclei",
    color: str = "#2a6fdb",
    block: int = 512,
    model: dict[str, Any] | None = None,
    reference: dict[str, Any] | None = None,
) -> Path:
    """Write labels as `segment` would have: one label group of a slide, finished.

    Regions are (y0, x0, y1, x1), px of the labels, and disjoint. What the store says of the model,
    and the run of where its slide is, may be left out.
    """
    objects = LocalStore(path)
    pyramid = Pyramid((labels.shape[0], labels.shape[1]), block)
    shape = slide_shape or [
        round(side * factor) for side, factor in zip(labels.shape, downsample, strict=True)
    ]
    record: dict[str, Any] = {"name": slide, "fingerprint": slide, "shape": list(shape), "mpp": mpp}
    ensure_root(objects, {"slide": record})
    create_labels(
        objects,
        name,
        pyramid,
        Frame.from_downsample(downsample, mpp),
        [NamedValue(value, class_name, color) for value, class_name in enumerate(classes)],
        {"slide": record} | ({"model": model} if model else {}),
    )
    progress = Progress(objects, name)
    boxes = [Box(*region) for region in regions] if regions else [Box.from_shape(labels.shape)]
    predicted = PredictedArea(pyramid.grid.shape, merge_boxes(boxes), tissue).read(
        Box.from_shape(labels.shape)
    )
    for index in pyramid.grid:
        core = pyramid.grid.core(index)
        part = labels[core.slices()]
        shards = write_block(objects, f"labels/{name}", pyramid, index, part, reduce_mode)
        marked = None if regions is None else _cut(regions, core)
        if marked != ():
            progress.write_marker(
                BlockMarker(
                    block=index, signature="0", counts=(), seconds={}, attempts=1, boxes=marked,
                    shards=shards, predicted=int(np.count_nonzero(predicted[core.slices()])),
                )
            )  # fmt: skip
    build_tail(objects, f"labels/{name}", pyramid, reduce_mode, None)
    resampling = {"downsample": list(downsample)}
    parameters: Any = {
        "regions": regions or [], "block": block, "sampling": resampling, "tissue": "none",
    }  # fmt: skip
    if reference is not None:
        parameters["slide"] = reference
    if tissue is not None:
        progress.write_mask(tissue)
        parameters["tissue"] = f"mask:{mask_digest(tissue)}"
    progress.write_run(RunRecord(name=name, signature="0", parameters=parameters, created=FINISHED))
    if finished:
        counts = np.bincount(labels[predicted], minlength=len(classes))[: len(classes)]
        counts[0] = np.count_nonzero(predicted) - counts[1:].sum()  # as `segment` counts it
        mark_finished(objects, name, counts.tolist(), FINISHED)
    return path


def _cut(regions: list[list[int]], core: Box) -> Any:
    parts = (Box(*region).intersection(core) for region in regions)
    return tuple((part.y0, part.x0, part.y1, part.x1) for part in parts if part.area)

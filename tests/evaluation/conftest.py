"""A factory of small label stores whose pixels are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_unet.labels.layout import Frame, create_labels, ensure_root, finish_labels
from wsi_unet.labels.objects import LocalObjects
from wsi_unet.labels.progress import Progress, RunRecord
from wsi_unet.labels.pyramid import Pyramid, reduce_mode
from wsi_unet.labels.writer import build_tail, write_block

FINISHED = "2026-01-02T03:04:05+00:00"


@dataclass(frozen=True)
class NamedValue:
    value: int
    name: str
    color: str = "#2a6fdb"


StoreFactory = Callable[..., Path]


@pytest.fixture
def make_store(tmp_path: Path) -> StoreFactory:
    """Write labels as `segment` would have: one label group of a slide, finished."""

    def make(
        labels: NDArray[np.uint8],
        folder: str = "out.ome.zarr",
        *,
        classes: tuple[str, ...] = ("background", "nucleus", "tumour"),
        mpp: tuple[float, float] | None = (0.5, 0.5),
        downsample: tuple[float, float] = (1.0, 1.0),
        slide: str = "a slide",
        finished: bool = True,
        regions: list[list[int]] | None = None,
        name: str = "nuclei",
    ) -> Path:
        path = tmp_path / folder
        objects = LocalObjects(path)
        pyramid = Pyramid((labels.shape[0], labels.shape[1]), 512)
        shape = [
            round(side * factor) for side, factor in zip(labels.shape, downsample, strict=True)
        ]
        record: dict[str, Any] = {"name": slide, "fingerprint": slide, "shape": shape, "mpp": mpp}
        ensure_root(objects, {"slide": record})
        create_labels(
            objects,
            name,
            pyramid,
            Frame.of(downsample, mpp),
            [NamedValue(value, class_name) for value, class_name in enumerate(classes)],
            {"slide": record},
        )
        for index in pyramid.grid:
            rows, columns = pyramid.grid.core(index).slices()
            write_block(
                objects, f"labels/{name}", pyramid, index, labels[rows, columns], reduce_mode
            )
        build_tail(objects, f"labels/{name}", pyramid, reduce_mode, None)
        sampling = {"downsample": list(downsample)}
        parameters: Any = {"regions": regions or [], "block": 512, "sampling": sampling}
        Progress(objects, name).write_run(
            RunRecord(
                name=name,
                signature="0",
                parameters=parameters,
                created=FINISHED,
            )
        )
        if finished:
            finish_labels(objects, name, np.bincount(labels.ravel()).tolist(), FINISHED)
        return path

    return make

"""Finding out which pixels of a label group were predicted, from its run's record and markers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import dask.array as da
import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockGrid, Box, Shape, merge_boxes
from wsi_unet.labels.contents import read_run_name
from wsi_unet.labels.documents import read_group_attributes
from wsi_unet.labels.progress import Progress, RunRecord
from wsi_unet.labels.stored_level import read_selection
from wsi_unet.predicted_area import PredictedArea, is_mask_of
from wsi_unet.storage.store import ByteStore


def read_predicted_area(
    store: ByteStore, label: str, shape: Shape, block: int
) -> PredictedArea | None:
    """Return the pixels of a label group that were predicted; None if that isn't known.

    They are those of finished blocks that lie in the run's regions and in tissue. It isn't known
    where the progress of the run isn't kept beside the labels.

    Args:
        store: the output.
        label: name of the label group.
        shape: (rows, columns) of its level 0, px.
        block: side of a block, px.

    Raises:
        OutputError: the record of the run or its tissue mask is damaged or missing.
    """
    progress = Progress(store, read_run_name(store, label))
    record = progress.read_run()
    if record is None:
        return None
    boxes: tuple[Box, ...] = (Box.from_shape(shape),)
    attributes: dict[str, Any] = read_group_attributes(store, f"labels/{label}") or {}
    finished = attributes.get("wsi_unet", {}).get("finished") is not None
    if record.parameters.get("regions") or not finished:
        boxes = _read_covered(progress, record, BlockGrid(shape, block))
    return PredictedArea(shape, boxes, _read_mask(progress, record))


def _read_covered(progress: Progress, record: RunRecord, grid: BlockGrid) -> tuple[Box, ...]:
    """Return what the markers say is done, whatever the regions are by now."""
    rows, columns = grid.size
    return merge_boxes(
        box
        for marker in progress.read_markers(record.signature)
        if 0 <= marker.block[0] < rows and 0 <= marker.block[1] < columns
        for box in marker.covered(grid)
    )


def _read_mask(progress: Progress, record: RunRecord) -> NDArray[np.bool_] | None:
    tissue = str(record.parameters.get("tissue", "none"))
    if tissue == "none":
        return None
    mask = progress.read_mask()
    if mask is None or not is_mask_of(mask, tissue):
        raise OutputError(
            f"{progress.store}: the tissue mask of {progress.name!r} is missing or belongs to "
            "another run, so what was predicted isn't known; run the same segmentation again, "
            "which restores it"
        )
    return mask


@dataclass(frozen=True, eq=False)
class _AreaArray:
    """A level of a predicted area as an array (rows, columns) that is computed when it is read."""

    area: PredictedArea
    level: int
    shape: Shape
    dtype: ClassVar = np.dtype(np.bool_)
    ndim: ClassVar = 2

    def __getitem__(self, key: tuple[slice | int | NDArray[np.intp], ...]) -> NDArray[np.bool_]:
        return read_selection(
            self.shape, key, self.dtype, lambda box: self.area.read(box, self.level)
        )


def to_lazy_array(
    area: PredictedArea, level: int, shape: Shape, chunks: tuple[int, int]
) -> da.Array:
    """Return which pixels of a level were predicted as a lazy array (rows, columns) of booleans.

    Arrays of equal areas have equal names, so xarray needn't compute them to see that they agree.

    Args:
        area: the pixels of level 0.
        level: level of the pyramid.
        shape: (rows, columns) of the level, px.
        chunks: (rows, columns) of a chunk, px.
    """
    identity = tokenize(area.shape, area.boxes, area.mask, level, shape, chunks)
    array: da.Array = da.from_array(
        _AreaArray(area, level, shape),
        chunks=chunks,
        name=f"predicted-{identity}",
        meta=np.empty((0, 0), np.bool_),
    )
    return array

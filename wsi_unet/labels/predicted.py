"""Finding out which pixels of a label group were predicted, from its run's record and markers."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockGrid, Box, Shape, merge_boxes
from wsi_unet.labels.progress import Progress, RunRecord
from wsi_unet.labels.stored_level import read_selection
from wsi_unet.predicted_area import PredictedArea, is_mask_of
from wsi_unet.process_cache import ProcessCache

if TYPE_CHECKING:
    import dask.array as da  # which takes long to import, and whoever reads boxes needs none


@dataclass(frozen=True, eq=False)
class StoredArea:
    """Which pixels of a run's labels were predicted: in finished blocks, its regions and tissue.

    The markers of the blocks, a request for each, are read when they are first needed, and only
    where they are: those of a finished run without regions say nothing more.

    Attributes:
        progress: the run's progress files.
        record: its record.
        grid: the blocks of its labels.
        finished: whether all its blocks are done.
        mask: its tissue mask; None for a run without one.
    """

    progress: Progress
    record: RunRecord
    grid: BlockGrid
    finished: bool
    mask: NDArray[np.bool_] | None
    _read: ProcessCache[PredictedArea] = field(default_factory=lambda: ProcessCache(capacity=1))

    @classmethod
    def open(
        cls, progress: Progress, record: RunRecord, grid: BlockGrid, *, finished: bool
    ) -> StoredArea:
        """Open the area of a run; see the attributes.

        Raises:
            OutputError: the tissue mask is damaged or missing.
        """
        return cls(progress, record, grid, finished, _read_mask(progress, record))

    def read(self) -> PredictedArea:
        """Return the area, which is read once.

        Raises:
            OutputError: a marker can't be read.
        """
        return self._read.get("area", self._make)

    def _make(self) -> PredictedArea:
        whole = (Box.from_shape(self.grid.shape),)
        boxes = self._read_covered() if self._is_partial() else whole
        return PredictedArea(self.grid.shape, boxes, self.mask)

    def _is_partial(self) -> bool:
        """Return whether the markers say what of the labels there is."""
        return bool(self.record.parameters.get("regions")) or not self.finished

    def _read_covered(self) -> tuple[Box, ...]:
        """Return what the markers say is done, whatever the regions are by now."""
        rows, columns = self.grid.size
        return merge_boxes(
            box
            for marker in self.progress.read_markers(self.record.signature)
            if 0 <= marker.block[0] < rows and 0 <= marker.block[1] < columns
            for box in marker.covered(self.grid)
        )

    def identify(self) -> str:
        """Return a text that only areas with the same pixels share; no marker is read for it."""
        from dask.base import tokenize

        covered: tuple[Any, ...] = ()
        if not self.finished:
            covered = (uuid.uuid4().hex,)  # it grows
        elif self._is_partial():
            where = str(self.progress.store.location), self.progress.name
            covered = (*where, self.record.signature, self.record.parameters["regions"])
        identity: str = tokenize(self.grid.shape, covered, self.mask)
        return identity


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

    area: StoredArea
    level: int
    shape: Shape
    dtype: ClassVar = np.dtype(np.bool_)
    ndim: ClassVar = 2

    def __getitem__(self, key: tuple[slice | int | NDArray[np.intp], ...]) -> NDArray[np.bool_]:
        return read_selection(
            self.shape, key, self.dtype, lambda box: self.area.read().read(box, self.level)
        )


def to_lazy_array(area: StoredArea, level: int, shape: Shape, chunks: tuple[int, int]) -> da.Array:
    """Return which pixels of a level were predicted as a lazy array (rows, columns) of booleans.

    Arrays of one finished area have equal names, so xarray needn't compute them to see that they
    agree.

    Args:
        area: the pixels of level 0.
        level: level of the pyramid.
        shape: (rows, columns) of the level, px.
        chunks: (rows, columns) of a chunk, px.
    """
    import dask.array as da
    from dask.base import tokenize

    identity = tokenize(area.identify(), level, shape, chunks)
    array: da.Array = da.from_array(
        _AreaArray(area, level, shape),
        chunks=chunks,
        name=f"predicted-{identity}",
        meta=np.empty((0, 0), np.bool_),
    )
    return array

"""The objects of regions: how many there are of each class, and what they measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsi_unet.cores import usable_cores
from wsi_unet.errors import OutputError, foreign_errors_as
from wsi_unet.ground_truth.annotation_rasters import AnnotationRaster
from wsi_unet.ground_truth.grids import DIGITS, Grid
from wsi_unet.measuring.sources import MeasuredLabels
from wsi_unet.storage.concurrent import REQUESTS, map_in_threads

NOT_MEASURED = frozenset({"y", "x", "y_um", "x_um", "orientation"})
"""Columns of numbers that have no mean: places, and the direction of an axis."""

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RegionObjects:
    """The objects of regions by class: arrays are (regions, classes).

    Regions are in the order of their file, classes by ascending label value.

    Attributes:
        objects: numbers of objects.
        means: mean of each measurement by the name of its column; NaN without objects.
        medians: likewise.
    """

    objects: NDArray[np.int64]
    means: Mapping[str, Values]
    medians: Mapping[str, Values]


@dataclass(frozen=True, eq=False)
class _Held:
    """Objects that lie in regions, and in which: pairs of a region and a row.

    Attributes:
        ids: (n,) identities.
        values: (n,) label values.
        measured: (n,) values by column.
        number: (pairs,) numbers of regions.
        row: (pairs,) rows.
    """

    ids: NDArray[np.uint64]
    values: NDArray[np.uint8]
    measured: Mapping[str, Values]
    number: NDArray[np.intp]
    row: NDArray[np.intp]

    @classmethod
    def concatenate(cls, several: Sequence[_Held]) -> _Held:
        """Return the objects of several parts, at least one."""
        sizes = np.array([len(each.ids) for each in several])
        pairs = [len(each.row) for each in several]
        before = np.repeat(np.cumsum(sizes) - sizes, pairs)
        return cls(
            np.concatenate([each.ids for each in several]),
            np.concatenate([each.values for each in several]),
            {
                name: np.concatenate([each.measured[name] for each in several])
                for name in several[0].measured
            },
            np.concatenate([each.number for each in several]),
            np.concatenate([each.row for each in several]) + before,
        )


def list_measurements(schema: pa.Schema) -> list[str]:
    """Return the columns of a table of objects that are measurements.

    >>> list_measurements(pa.schema([("y", pa.float64()), ("area_px", pa.int64())]))
    ['area_px']
    """
    names = [
        field.name
        for field in schema
        if pa.types.is_floating(field.type) and field.name not in NOT_MEASURED
    ]
    return names if "area_um2" in names else ["area_px", *names]


def measure_objects(
    objects: ds.Dataset, labels: MeasuredLabels, regions: AnnotationRaster
) -> RegionObjects:
    """Count and measure the objects whose centroid lies in each region.

    Args:
        objects: the objects of the labels.
        labels: the labels.
        regions: the regions on the labels' pixels.

    Raises:
        OutputError: the objects can't be read.
    """
    columns = list_measurements(objects.schema)
    grid = labels.grid

    def read(part: ds.Fragment) -> _Held:
        # A scan of the whole dataset would go on in Arrow's threads after an error, and crash.
        failure = f"{labels.location}: {part.path!r} can't be read; find objects again"
        with foreign_errors_as(OutputError, failure):
            file = pq.ParquetFile(part.open())
            table = file.read(["id", "label", "y", "x", *columns], use_threads=False)
        return _hold(table, columns, grid, regions)

    threads = REQUESTS if labels.location.is_url else usable_cores()
    parts = map_in_threads(read, objects.get_fragments(), threads)
    held = [part for part in parts if len(part.row)]
    shape = len(regions.annotations), len(labels.classes)
    if not held:
        nothing = {name: np.full(shape, np.nan) for name in columns}
        return RegionObjects(np.zeros(shape, np.int64), nothing, nothing)
    return _summarise(_Held.concatenate(held), shape, sorted(labels.classes))


def _hold(table: pa.Table, columns: Sequence[str], grid: Grid, regions: AnnotationRaster) -> _Held:
    """Return the objects of a part that lie in regions."""
    centroids = np.stack([table["y"].to_numpy(), table["x"].to_numpy()], axis=1)
    # Rounded, the centroid of a single pixel is its centre, wherever that lies on the slide.
    placed = np.round(grid.transform_polygon((centroids,))[0], DIGITS)
    number, point = regions.find_holders(placed)
    held = np.zeros(len(placed), np.bool_)
    held[point] = True
    rows, row = np.flatnonzero(held), np.cumsum(held)[point] - 1

    def take(name: str) -> NDArray[Any]:
        values: NDArray[Any] = table[name].to_numpy()[rows]  # null becomes NaN
        return values

    measured = {name: take(name).astype(np.float64, copy=False) for name in columns}
    return _Held(take("id"), take("label"), measured, number, row)


def _summarise(held: _Held, shape: tuple[int, int], values: Sequence[int]) -> RegionObjects:
    """Return numbers, means and medians; sums are in order of identity, so always the same."""
    group = (held.number - 1) * shape[1] + np.searchsorted(values, held.values)[held.row]
    row = held.row[np.lexsort((held.ids[held.row], group))]
    objects = np.bincount(group, minlength=shape[0] * shape[1])
    ends = np.cumsum(objects)

    def summarise(measured: Values) -> tuple[Values, Values]:
        mean, median = (np.full(len(objects), np.nan) for _ in range(2))
        ordered = measured[row]
        for index in np.flatnonzero(objects):
            own = ordered[ends[index] - objects[index] : ends[index]]
            if np.isnan(own).any():
                own = own[~np.isnan(own)]
            if len(own):
                mean[index], median[index] = own.mean(), np.median(own)
        return mean.reshape(shape), median.reshape(shape)

    found = list(map_in_threads(summarise, held.measured.values(), usable_cores()))
    return RegionObjects(
        objects.reshape(shape).astype(np.int64),
        {name: mean for name, (mean, _) in zip(held.measured, found, strict=True)},
        {name: median for name, (_, median) in zip(held.measured, found, strict=True)},
    )

"""Tables that annotate SpatialData's elements, as AnnData lays them out in Zarr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_unet.exports.results import BATCH_ROWS

REGION_KEY, INSTANCE_KEY = "region", "instance_id"
"""Columns that say which element a row is about, and which of its instances."""

Values = NDArray[Any]


@dataclass(frozen=True)
class Annotations:
    """A table that is written, a batch of rows at a time.

    Attributes:
        group: its Zarr group.
        columns: arrays of `obs` by column, codes of categories included.
        index: names of the rows.
        numbers: the matrix X, a column per variable.
        positions: (n, 2) x and y of the rows; None: they have none.
    """

    group: zarr.Group
    columns: Mapping[str, zarr.Array[Any]]
    index: zarr.Array[Any]
    numbers: zarr.Array[Any]
    positions: zarr.Array[Any] | None

    def write(
        self,
        start: int,
        index: Values,
        columns: Mapping[str, Values],
        numbers: Values,
        positions: Values | None = None,
    ) -> None:
        """Write rows.

        Args:
            start: number of the first.
            index: their names.
            columns: values of `obs`, by column; of categories their codes.
            numbers: (rows, variables).
            positions: (rows, 2) x and y.
        """
        rows = slice(start, start + len(index))
        self.index[rows] = index
        for name, values in columns.items():
            self.columns[name][rows] = values
        self.numbers[rows] = numbers
        if self.positions is not None and positions is not None:
            self.positions[rows] = positions


def create_table(
    parent: zarr.Group,
    name: str,
    region: str,
    rows: int,
    *,
    columns: Mapping[str, np.dtype[Any]],
    categories: Mapping[str, Sequence[str]],
    variables: Sequence[str],
    spatial: bool,
) -> Annotations:
    """Lay out a table; all its rows annotate one element.

    Args:
        parent: the group of tables.
        name: name of the table.
        region: name of the element.
        rows: number of rows.
        columns: types of the columns of `obs` that aren't categories.
        categories: columns of `obs` with categories, and those.
        variables: names of the columns of X.
        spatial: whether rows have positions.
    """
    group = _create_annotating_group(parent, name, region)
    obs = _create_frame(group, "obs", [*columns, REGION_KEY, *categories])
    made = {key: _create_array(obs, key, (rows,), dtype) for key, dtype in columns.items()}
    for key, kinds in {REGION_KEY: [region], **categories}.items():
        made[key] = _create_categories(obs, key, rows, kinds)
    var = _create_frame(group, "var", [])
    names = _create_array(var, "_index", (len(variables),), str, "string-array")
    if variables:
        names[:] = np.array(variables, dtype=object)
    return Annotations(
        group=group,
        columns=made,
        index=_create_array(obs, "_index", (rows,), str, "string-array"),
        numbers=_create_array(group, "X", (rows, len(variables)), np.dtype(np.float64)),
        positions=(
            _create_array(group, "obsm/spatial", (rows, 2), np.dtype(np.float64))
            if spatial
            else None
        ),
    )


def _create_annotating_group(parent: zarr.Group, name: str, region: str) -> zarr.Group:
    """Return a new AnnData group that annotates a region, without `X`, `obs` and `var`."""
    keys = {"region": region, "region_key": REGION_KEY, "instance_key": INSTANCE_KEY}
    group = parent.create_group(
        name,
        attributes={
            "encoding-type": "anndata",
            "encoding-version": "0.1.0",
            "spatialdata-encoding-type": "ngff:regions_table",
            "version": "0.2",
            **keys,
        },
    )
    for part in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        _create_group(group, part, "dict", "0.1.0")
    attrs = _create_group(group, "uns/spatialdata_attrs", "dict", "0.1.0")
    for key, value in keys.items():
        text = _create_array(attrs, key, (), str, "string")
        text[...] = value
    return group


def _create_group(parent: zarr.Group, name: str, kind: str, version: str) -> zarr.Group:
    return parent.create_group(
        name, attributes={"encoding-type": kind, "encoding-version": version}
    )


def _create_frame(parent: zarr.Group, name: str, columns: Sequence[str]) -> zarr.Group:
    """Lay out a data frame, whose index and columns are arrays in it."""
    frame = _create_group(parent, name, "dataframe", "0.2.0")
    frame.update_attributes({"_index": "_index", "column-order": [*columns]})
    return frame


def _create_array(
    parent: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | type[str],
    kind: str = "array",
) -> zarr.Array[Any]:
    """Lay out an array with a chunk per batch of rows."""
    return parent.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=tuple(max(1, min(side, BATCH_ROWS)) for side in shape),
        attributes={"encoding-type": kind, "encoding-version": "0.2.0"},
    )


def _create_categories(
    frame: zarr.Group, name: str, rows: int, names: Sequence[str]
) -> zarr.Array[Any]:
    """Lay out a column of categories; return the array of its codes."""
    column = _create_group(frame, name, "categorical", "0.2.0")
    column.update_attributes({"ordered": False})
    categories = _create_array(column, "categories", (len(names),), str, "string-array")
    categories[:] = np.array(names, dtype=object)
    return _create_array(column, "codes", (rows,), np.dtype(np.int16))

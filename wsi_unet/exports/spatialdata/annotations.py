"""The tables of a result: what its classes are, and what is measured of its objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.results import NOT_PREDICTED, ExportedGroup, ExportedObjects
from wsi_unet.exports.spatialdata.tables import INSTANCE_KEY, REGION_KEY, create_table

_ELSEWHERE = ("id", "label", "y", "x", "y_um", "x_um")
"""Numbers that aren't measured: they are in `obs` or `obsm`, or follow from those."""


def write_classes(parent: zarr.Group, name: str, group: ExportedGroup) -> None:
    """Write what the values of labels mean: a row per class.

    Args:
        parent: the group of tables.
        name: name of the table.
        group: the label group, after which the labels are named.
    """
    classes = dict(group.source.classes)
    not_predicted = group.find_not_predicted_value()
    if not_predicted is not None:
        classes[not_predicted] = NOT_PREDICTED
    values = sorted(classes)
    names, codes = _number_classes(classes)
    table = create_table(
        parent,
        name,
        group.name,
        len(values),
        columns={INSTANCE_KEY: np.dtype(np.int64)},
        categories={"class": names},
        variables=(),
        spatial=False,
    )
    table.write(
        0,
        np.array([str(value) for value in values], dtype=object),
        {
            INSTANCE_KEY: np.array(values, np.int64),
            REGION_KEY: np.zeros(len(values), np.int16),
            "class": codes[values],
        },
        np.empty((len(values), 0)),
    )


def write_objects(
    parent: zarr.Group,
    name: str,
    region: str,
    group: ExportedGroup,
    objects: ExportedObjects,
    meter: ExportMeter,
) -> None:
    """Write what is measured of objects: a row each, in order of identity.

    Args:
        parent: the group of tables.
        name: name of the table.
        region: name of the shapes.
        group: the label group.
        objects: its objects.
        meter: is told the objects that are written.
    """
    schema = objects.schema
    variables = [field.name for field in schema if _is_measured(field)]
    flags = [field.name for field in schema if pa.types.is_boolean(field.type)]
    names, codes = _number_classes(group.source.classes)
    table = create_table(
        parent,
        name,
        region,
        len(objects),
        columns={INSTANCE_KEY: np.dtype(np.int64), **dict.fromkeys(flags, np.dtype(np.bool_))},
        categories={"class": names},
        variables=variables,
        spatial=True,
    )
    start = 0
    for rows in objects.read_rows(["id", "uuid", "label", "x", "y", *variables, *flags]):
        table.write(
            start,
            np.array(rows["uuid"].to_pylist(), dtype=object),
            {
                INSTANCE_KEY: rows["id"].cast(pa.int64()).to_numpy(),
                REGION_KEY: np.zeros(len(rows), np.int16),
                "class": codes[rows["label"].to_numpy()],
                **{flag: rows[flag].to_numpy() for flag in flags},
            },
            _stack(rows, variables),
            _stack(rows, ["x", "y"]),
        )
        start += len(rows)
        meter.add(len(rows))


def _number_classes(classes: Mapping[int, str]) -> tuple[list[str], NDArray[np.int16]]:
    """Return the names of classes, each once, and (256,) the name's place by label value."""
    values = sorted(classes)
    names = list(dict.fromkeys(classes[value] for value in values))
    codes = np.zeros(256, np.int16)
    codes[values] = [names.index(classes[value]) for value in values]
    return names, codes


def _is_measured(field: pa.Field) -> bool:
    numeric = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    return numeric and field.name not in _ELSEWHERE


def _stack(rows: pa.Table, columns: list[str]) -> NDArray[np.float64]:
    """Return columns as a matrix (rows, columns); null is NaN."""
    made: list[NDArray[Any]] = [rows[name].cast(pa.float64()).to_numpy() for name in columns]
    return np.stack(made, axis=1) if made else np.empty((len(rows), 0))

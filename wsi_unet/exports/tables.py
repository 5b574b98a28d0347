"""The table of objects in one file: CSV and GeoParquet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wsi_unet.csv_cells import guard_cell
from wsi_unet.exports.destination import write_file
from wsi_unet.exports.options import ExportOptions
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.provenance import KEY, encode, is_ours
from wsi_unet.exports.results import ExportedObjects, ExportedResult
from wsi_unet.objects.table import COVERING, describe_outlines

GROUP = "label_group"
"""The first column: the label group that an object belongs to."""

_CSV_HEAD = f"{GROUP},id,uuid,label,class,".encode()
_LEFT_OUT = ("geometry", "bbox")
"""Columns that a CSV file doesn't have."""


def export_csv(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write all objects of a result as a CSV file, a row each, without their outlines.

    Null is an empty cell; text that a spreadsheet would take for a formula begins with a '.
    """
    found = _open(result, meter)
    names = _merge_schemas(found).names
    columns = [name for name in names if name not in _LEFT_OUT]
    with write_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow(map(guard_cell, [GROUP, *columns]))
        for group, objects in found.items():
            there = [name for name in columns if name in objects.schema.names]
            for table in objects.read_rows(there):
                _write_csv(writer, guard_cell(group), columns, table)
                meter.add(len(table))
        text.flush()
        text.detach()
    return [path]


def is_csv(path: Path) -> bool:
    """Return whether a file is a table that `export_csv` wrote."""
    with path.open("rb") as file:
        return file.read(len(_CSV_HEAD)) == _CSV_HEAD


def _write_csv(writer: Any, group: str, columns: list[str], table: pa.Table) -> None:
    for batch in table.to_batches(max_chunksize=10_000):
        missing = [None] * len(batch)
        cells = [
            _to_cells(batch.column(name)) if name in batch.schema.names else missing
            for name in columns
        ]
        writer.writerows(zip([group] * len(batch), *cells, strict=True))


def _to_cells(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if not pa.types.is_string(column.type):
        return values
    guarded = {text: guard_cell(text) for text in {*values} - {None}}
    return [guarded.get(text) for text in values]


def export_parquet(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write all objects of a result as one GeoParquet 1.1 file, with provenance in its metadata."""
    found = _open(result, meter)
    schema = _merge_schemas(found)
    metadata = {
        b"geo": json.dumps(describe_outlines(covering=COVERING)).encode(),
        KEY.encode(): encode(result.describe(found)).encode(),
    }
    whole = schema.insert(0, pa.field(GROUP, pa.dictionary(pa.int32(), pa.string())))
    with (
        write_file(path) as file,
        pq.ParquetWriter(file, whole.with_metadata(metadata), compression="zstd") as writer,
    ):
        for group, objects in found.items():
            for table in objects.read_rows():
                writer.write_table(_complete(group, table, whole))
                meter.add(len(table))
    return [path]


def is_parquet(path: Path) -> bool:
    """Return whether a file is a table that `export_parquet` wrote."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, ValueError):
        return False
    return is_ours(metadata.get(KEY.encode(), b""))


def _open(result: ExportedResult, meter: ExportMeter) -> dict[str, ExportedObjects]:
    """Return the objects of a result's label groups, by name."""
    found = {group.name: group.open_objects() for group in result.groups}
    meter.start(sum(map(len, found.values())), "objects")
    return found


def _merge_schemas(found: dict[str, ExportedObjects]) -> pa.Schema:
    """Return the columns that any of the tables has, geometry at the end."""
    merged = pa.unify_schemas([objects.schema for objects in found.values()])
    names = [name for name in merged.names if name not in _LEFT_OUT]
    return pa.schema([merged.field(name) for name in (*names, *reversed(_LEFT_OUT))])


def _complete(group: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with all columns of a schema; what their group doesn't measure is null."""
    names = pa.DictionaryArray.from_arrays(pa.nulls(len(table), pa.int32()).fill_null(0), [group])
    columns = [names]
    for field in list(schema)[1:]:
        there = field.name in table.schema.names
        columns.append(table[field.name] if there else pa.nulls(len(table), field.type))
    return pa.Table.from_arrays(columns, schema=schema)

"""Writing the table of measurements as a CSV or Parquet file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from wsi_unet.atomic_files import replace_file
from wsi_unet.csv_cells import guard_cell
from wsi_unet.errors import OptionError


def check_table_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a table to write, before anything is measured.

    Raises:
        OptionError: its suffix is neither .csv nor .parquet, or its folder isn't there.
    """
    table = Path(path)
    if table.suffix.lower() not in _ENCODERS:
        raise OptionError(
            f"{table}: a table is a .csv or .parquet file; choose one of these suffixes",
            option="output",
        )
    if not table.parent.is_dir():
        raise OptionError(f"{table}: its folder isn't there; make it first", option="output")
    if table.is_dir():
        raise OptionError(f"{table}: is a folder; choose another file", option="output")
    return table


def write_table(table: pa.Table, path: str | os.PathLike[str]) -> Path:
    """Write a table whole, in place of an earlier file.

    In CSV, null is an empty cell, and text that a spreadsheet would take for a formula begins
    with a '.

    Args:
        table: columns of text and numbers.
        path: a .csv or .parquet file.

    Returns:
        Its path.

    Raises:
        OptionError: see `check_table_path`.
        OutputError: it can't be written.
    """
    checked = check_table_path(path)
    replace_file(checked, _ENCODERS[checked.suffix.lower()](table))
    return checked


def _encode_csv(table: pa.Table) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(guard_cell, table.column_names))
    for batch in table.to_batches():
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            writer.writerow(guard_cell(c) if isinstance(c, str) else c for c in row)
    return text.getvalue().encode()


def _encode_parquet(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


_ENCODERS: dict[str, Callable[[pa.Table], bytes]] = {
    ".csv": _encode_csv,
    ".parquet": _encode_parquet,
}

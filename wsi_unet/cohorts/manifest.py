"""Reading manifests: CSV files with one slide per row.

    slide,output,model,mpp,tissue,patient
    a.svs,,,,,P-17
    old/b.tif,b-anew.ome.zarr,my-model/,0.25,b.geojson,P-18

Only the column `slide` is needed. Paths are relative to the manifest's folder. Cells are read as
`csv_cells` writes them. Bytes that aren't UTF-8 stand for those of file names, as in `os.fsdecode`.
"""

from __future__ import annotations

import csv
import errno
import io
import os
from collections import Counter
from collections.abc import Iterator

from wsi_unet.csv_cells import restore_cell
from wsi_unet.errors import InputError
from wsi_unet.locations import Location
from wsi_unet.regular_files import read_regular
from wsi_unet.storage.opening import open_store

SUFFIX = ".csv"

COLUMNS = ("slide", "output", "model", "mpp", "tissue", "series")
"""The columns that have a meaning; others are carried into the cohort's report."""


MOST_NAMES = 20
"""Columns that are listed when one is missing."""
LARGEST_MANIFEST = 1 << 28
"""Bytes of the largest manifest that is read: millions of rows."""


def read_manifest(manifest: str) -> Iterator[tuple[int, dict[str, str] | InputError]]:
    """Yield each row of a manifest: the number of its first line, and its cells by column.

    Headers are stripped of blanks; empty lines are skipped; a short row's missing cells are empty.
    In place of a line that isn't CSV, or has more cells than there are columns, comes what is wrong
    with it.

    Args:
        manifest: path or URL of a CSV file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: it can't be read, has no column `slide`, or one that appears twice; or a quote
            hides where the next rows begin.
    """
    rows = _csv_rows(manifest, _read_text(manifest))
    _, headers = next(rows, (1, []))
    if isinstance(headers, InputError):
        raise headers
    names = [restore_cell(name.strip()) for name in headers]
    if "slide" not in names:
        shown = ", ".join([repr(name[:40]) for name in names][:MOST_NAMES])
        columns = f"there are {shown}" if names else "it is empty"
        raise InputError(
            f"{manifest}: has no column 'slide' ({columns}); the first line names the columns, "
            "separated by commas"
        )
    twice = {name for name, count in Counter(names).items() if name and count > 1}
    if twice:
        raise InputError(f"{manifest}: the column {min(twice)!r} appears twice")
    for line, cells in rows:
        yield line, cells if isinstance(cells, InputError) else _name_cells(manifest, names, cells)


def _name_cells(manifest: str, names: list[str], cells: list[str]) -> dict[str, str] | InputError:
    rest = [*cells[len(names) :], *(c for n, c in zip(names, cells, strict=False) if not n)]
    if any(cell.strip() for cell in rest):
        return InputError(
            f"has a cell {rest[0][:40]!r} without a column; quote cells that hold commas"
        )
    cells = [*map(restore_cell, cells), *[""] * (len(names) - len(cells))]
    return {name: cell for name, cell in zip(names, cells, strict=False) if name}


def resolve_path(manifest: str, path: str) -> str:
    """Return a path from a manifest, which is relative to the manifest's folder."""
    if is_absolute(path):
        return path
    folder = manifest_folder(manifest)
    if Location.parse(folder).is_url:
        return f"{folder}/{path}"
    return os.path.join(folder, path)  # noqa: PTH118 (as typed)


def manifest_folder(manifest: str) -> str:
    """Return the folder that a manifest is in; "" is the current one."""
    location = Location.parse(manifest)
    return str(location.parent) if location.is_url else os.path.dirname(manifest)  # noqa: PTH120


def is_absolute(path: str) -> bool:
    """Return whether a path or URL is relative to nothing."""
    return path.startswith(("/", "~")) or Location.parse(path).is_url


def _read_text(manifest: str) -> str:
    try:
        location = Location.parse(manifest)
        if location.is_url:
            data = open_store(location.parent).get(location.name)
            if data is None:
                raise FileNotFoundError(errno.ENOENT, "no such file")
        else:
            data = read_regular(location.path, LARGEST_MANIFEST)
    except OSError as error:
        raise InputError(f"{manifest}: can't be read: {error.strerror or error}") from error
    if b"\0" in data:
        raise InputError(f"{manifest}: isn't text in UTF-8; save it as CSV in UTF-8")
    return data.decode("utf-8-sig", "surrogateescape")


def _csv_rows(manifest: str, text: str) -> Iterator[tuple[int, list[str] | InputError]]:
    """Yield each row's first line number and its cells, or why the line isn't CSV.

    Rows of blanks are left out.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if reader.line_num > line:
                raise InputError(f"{manifest}, line {line}: isn't CSV ({error})") from error
            yield line, InputError(f"isn't CSV ({error})")
            continue
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells

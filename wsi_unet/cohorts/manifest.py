"""Reading manifests: CSV files with one slide per row.

    slide,output,model,mpp,tissue,patient
    a.svs,,,,,P-17
    old/b.tif,b-anew.ome.zarr,my-model/,0.25,b.geojson,P-18

Only the column `slide` is needed. Paths are relative to the manifest's folder.
"""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Iterator

from wsi_unet.errors import InputError
from wsi_unet.locations import Location
from wsi_unet.storage.opening import open_store

SUFFIX = ".csv"

COLUMNS = ("slide", "output", "model", "mpp", "tissue")
"""The columns that have a meaning; others are carried into the cohort's report."""


def read_manifest(manifest: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row of a manifest: the number of its first line, and its cells by column.

    Headers are stripped of blanks; empty lines are skipped; a short row's missing cells are empty.

    Args:
        manifest: path or URL of a CSV file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: it can't be read, isn't CSV, or has no column `slide`; a column appears twice; a
            row has more cells than there are columns.
    """
    rows = _csv_rows(manifest, _read_text(manifest))
    _, headers = next(rows, (1, []))
    names = [name.strip() for name in headers]
    if "slide" not in names:
        columns = f"there are {', '.join(names)}" if names else "it is empty"
        raise InputError(
            f"{manifest}: has no column 'slide' ({columns}); the first line names the columns, "
            "separated by commas"
        )
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise InputError(f"{manifest}: the column {min(twice)!r} appears twice")
    for line, cells in rows:
        rest = [*cells[len(names) :], *(c for n, c in zip(names, cells, strict=False) if not n)]
        if any(cell.strip() for cell in rest):
            raise InputError(
                f"{manifest}, line {line}: has a cell {rest[0]!r} without a column; quote cells "
                "that hold commas"
            )
        cells += [""] * (len(names) - len(cells))
        yield line, {name: cell for name, cell in zip(names, cells, strict=False) if name}


def resolve_path(manifest: str, path: str) -> str:
    """Return a path from a manifest, which is relative to the manifest's folder."""
    if is_absolute(path):
        return path
    location = Location.parse(manifest)
    if location.is_url:
        return str(location.parent / path)
    return os.path.join(os.path.dirname(manifest), path)  # noqa: PTH118, PTH120 (as typed)


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
            data = location.path.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{manifest}: can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{manifest}: isn't UTF-8 text (byte {error.start}); save it as CSV in UTF-8"
        ) from error


def _csv_rows(manifest: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's first line number and its cells; rows of blanks are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{manifest}, line {line}: isn't CSV ({error})") from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells

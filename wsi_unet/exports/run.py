"""The verb `export`: from results to files of other programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsi_unet import logs
from wsi_unet.cohorts.status import is_cohort, read_cohort_status
from wsi_unet.errors import OptionError, OutputError, WsiUnetError
from wsi_unet.exports.destination import check_destination, is_folder
from wsi_unet.exports.formats import ExportFormat
from wsi_unet.exports.options import ExportOptions
from wsi_unet.exports.progress import ExportCallback, ExportMeter, ignore_progress
from wsi_unet.exports.results import ExportedResult, open_result
from wsi_unet.exports.writers import WRITERS
from wsi_unet.labels.contents import Output
from wsi_unet.locations import Location


@dataclass(frozen=True)
class ExportReport:
    """Which files an export wrote, and what failed.

    Attributes:
        files: the files and folders that were written.
        failures: what went wrong, by result; empty for a single result, whose error is raised.
    """

    files: tuple[Path, ...]
    failures: dict[str, str]


def export(
    output: Output,
    format: str,
    path: str | os.PathLike[str] | None = None,
    *,
    options: ExportOptions | None = None,
    on_progress: ExportCallback = ignore_progress,
) -> ExportReport:
    """Export a finished result, or every result of a cohort's folder, for other programs.

    >>> wsi_unet.export("slide.ome.zarr", "parquet", "objects.parquet")    # doctest: +SKIP

    An export is there whole or not at all. An earlier one in its place is replaced; anything else
    is left alone.

    Args:
        output: a result, or a folder with results: a folder or an s3:// URL.
        format: its name, such as "csv" or "qupath"; docs/reference/export.md describes them.
        path: the file or folder to write; of a cohort, the folder for one export per result. None:
            named after the result, in the current folder.
        options: what it holds; None: what suits the format.
        on_progress: called with an `ExportProgress` several times per second; what it raises ends
            the export, of which nothing is left.

    Raises:
        OptionError: the format is unknown, or an option isn't for it or unusable.
        OutputError: there is no such result or label group, its labels aren't finished or are
            damaged, its objects are needed and aren't there or not current; or something else is in
            the export's place, or it can't be written.
        LockedError: another process is writing the same file.
    """
    chosen = options or ExportOptions()
    facts = chosen.check(format)
    if path is not None and not os.fspath(path):
        raise OptionError("`path` is empty; give a file or folder, or leave it out", option="path")
    location = Location.parse(output)
    target = Path("." if path is None else path).expanduser()
    if is_cohort(location):
        return _export_all(location, format, target, chosen, on_progress)
    result = open_result(location, chosen.label)
    place = _place(result, facts, target, within=path is None)
    return ExportReport((*_export(result, format, place, chosen, on_progress),), {})


def _export_all(
    folder: Location, name: str, target: Path, options: ExportOptions, on_progress: ExportCallback
) -> ExportReport:
    """Export every finished result of a cohort; one that can't be doesn't stop the others.

    Raises:
        OptionError: the target isn't a folder and can't be made one, or two results would have the
            same file.
    """
    facts = options.check(name)
    options.check_many()
    _make_folder(target)
    written: list[Path] = []
    failures: dict[str, str] = {}
    taken: dict[Path, str] = {}
    for output in _list_outputs(folder):
        try:
            result = open_result(Location.parse(output), options.label)
            place = _place(result, facts, target, within=True)
            other = taken.setdefault(place, output)
            if other != output:
                raise OutputError(
                    f"{place} would also be the export of {other}; export one of them by itself"
                )
            written += _export(result, name, place, options, on_progress)
        except WsiUnetError as error:
            failures[output] = str(error)
    if not written and not failures:
        raise OutputError(f"{folder}: there are no results here; segment slides to make some")
    return ExportReport((*written,), failures)


def _list_outputs(folder: Location) -> Iterator[str]:
    return (each.output for each in read_cohort_status(folder) if each.output)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"{path}: the exports of a cohort need a folder, and it can't be made "
            f"({error.strerror or error})",
            option="path",
        ) from error


def _place(result: ExportedResult, facts: ExportFormat, target: Path, *, within: bool) -> Path:
    """Return where the export of a result goes: the target, or a file in it that bears its name."""
    if within or (is_folder(target) and not facts.folder):
        return target / f"{result.stem}{facts.suffix}"
    return target


def _export(
    result: ExportedResult,
    name: str,
    place: Path,
    options: ExportOptions,
    on_progress: ExportCallback,
) -> list[Path]:
    writer = WRITERS[name]
    path = check_destination(place, writer.recognise)
    meter = ExportMeter(result.location.name, on_progress)
    written = writer.write(result, path, options, meter)
    logs.event("exported", output=str(result.location), format=name, path=str(path))
    return written

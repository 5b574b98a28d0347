"""The rows of a cohort's report, one per slide: what they say, how they are written and read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from wsi_unet.cohorts.cohort import CohortSlide
from wsi_unet.cohorts.manifest import COLUMNS
from wsi_unet.cohorts.stored import StoredHeader, StoredRow, read_document
from wsi_unet.errors import WsiUnetError
from wsi_unet.locations import Location
from wsi_unet.segmentation.report import Report
from wsi_unet.storage.store import ByteStore
from wsi_unet.wording import count

JSON_NAME = "cohort.json"
MOST_BYTES = 1 << 30
"""The most bytes of a report: hundreds of thousands of rows."""

BEFORE_ROWS = b',\n "slides": [\n'
"""Separates the header, which is about the whole cohort, from the rows, one per line."""

Row = dict[str, Any]

TIMES = ("seconds", "startup_seconds", "mpx_per_s", "blocks_per_s", "device_busy", "waits")
"""The columns that a run that finds nothing left to do takes over from the run before."""

CSV_COLUMNS = (
    *("slide", "output", "status", "error", "model", "mpp", "tissue", "series", "label"),
    *("exactness", "inexact_because"),
    *("blocks", "blocks_done", "blocks_failed", "seconds", "startup_seconds", "mpx_per_s"),
    *("blocks_per_s", "device_busy"),
    *("read_seconds", "device_wait_seconds", "predict_seconds", "write_seconds"),
    "warnings",
)
CLASS_COLUMNS = ("area_mm2", "pixels", "fraction")
OBJECT_COLUMNS = ("objects", "density_per_mm2", "mean_area")
"""These follow for each class, as "area_mm2:nuclei" and so on; then the manifest's columns."""

EMPTY_ROW: Row = {
    **dict.fromkeys(
        ("slide", "output", "status", "error", "model", "mpp", "tissue", "series", "label")
    ),
    **dict.fromkeys(("exactness", "inexact_because")),
    **dict.fromkeys(("blocks", *TIMES)),
    "classes": [],
    "objects": [],
    "warnings": [],
    "columns": {},
}


def read_report_rows(store: ByteStore) -> Iterator[Row]:
    """Yield the rows of a cohort's report; none where there is no such report.

    Raises:
        OutputError: it can't be read.
    """
    head, _, rows = (store.get(JSON_NAME, MOST_BYTES) or b"").partition(BEFORE_ROWS)
    if read_header(head) is None:
        return
    for line in rows.splitlines():
        row = read_document(StoredRow, line.removesuffix(b","))
        if row is not None:
            yield row


def read_header(head: bytes) -> Row | None:
    """Return what a report's bytes say about the whole cohort; None if they aren't a report."""
    return read_document(StoredHeader, head.partition(BEFORE_ROWS)[0] + b"}")


def describe_error(error: Exception) -> str:
    """Return an error's message in one line; with its kind if it wasn't raised on purpose."""
    text = " ".join(str(error).split())
    return text if isinstance(error, WsiUnetError) else f"{type(error).__name__}: {text}"


def make_waiting_row(slide: CohortSlide) -> Row:
    """Return the row of a slide of which nothing is known yet.

    One that a manifest describes wrongly is refused: its cells are as given, and may mean nothing.
    """
    if slide.error is not None:
        given = {name: cell or None for name, cell in zip(COLUMNS, slide.given, strict=True)}
        failed = {"status": "failed", "error": describe_error(slide.error), "refused": True}
        return {**EMPTY_ROW, **given, **failed, "columns": slide.columns}
    job, tissue = slide.job, slide.job.options.tissue
    return {
        **EMPTY_ROW,
        "slide": str(Location.parse(job.slide)),
        "output": str(Location.parse(job.output or "")),
        "status": "waiting",
        "model": job.model,
        "mpp": job.options.mpp,
        "tissue": tissue if tissue in ("auto", "none") else str(Location.parse(tissue)),
        "series": job.options.series,
        "columns": slide.columns,
    }


def is_still_finished(before: Row, row: Row) -> bool:
    """Return whether an earlier row says that the job of `row` was finished."""
    return before["status"] == "finished" and all(before.get(name) == row[name] for name in COLUMNS)


def summarise_report(report: Report) -> Row:
    """Return the cells of a slide's row that its report knows."""
    errors = [failure.error for failure in report.failures]
    errors += [failure.error for group in report.objects for failure in group.failures]
    return {
        "status": report.state,
        "error": f"{count(len(errors), 'failed block')}: {errors[0]}" if errors else None,
        "label": report.label,
        "exactness": report.exactness,
        "inexact_because": report.inexact_because,
        "blocks": asdict(report.blocks),
        "seconds": round(report.seconds, 3),
        "startup_seconds": round(report.startup_seconds, 3),
        "mpx_per_s": round(report.mpx_per_s, 4),
        "blocks_per_s": round(report.blocks_per_s, 4),
        "device_busy": round(report.device_busy, 4),
        "waits": {name: round(seconds, 3) for name, seconds in asdict(report.waits).items()},
        "classes": [
            {"name": area.name, **{kind: getattr(area, kind) for kind in ("value", *CLASS_COLUMNS)}}
            for area in report.classes
        ],
        "objects": [
            {"name": found.name, **{kind: getattr(found, kind) for kind in OBJECT_COLUMNS}}
            for group in report.objects
            for found in group.classes
        ],
        "warnings": list(report.warnings),
    }


def encode_row(row: Row) -> bytes:
    """Return a row as its line in cohort.json."""
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode()


def flatten_row(row: Row, ours: Mapping[str, None]) -> Row:
    """Return a row as the cells of the table.

    Args:
        row: the row.
        ours: our own columns, which those of the manifest never hide.
    """
    blocks, waits = row["blocks"] or {}, row["waits"] or {}
    cells = {name: row[name] for name in CSV_COLUMNS if name in row and name != "blocks"}
    cells |= {
        "blocks": blocks.get("total"),
        "blocks_done": blocks.get("done"),
        "blocks_failed": blocks.get("failed"),
        "read_seconds": waits.get("read"),
        "device_wait_seconds": waits.get("device"),
        "predict_seconds": waits.get("predict"),
        "write_seconds": waits.get("write"),
        "warnings": "; ".join(row["warnings"]) or None,
    }
    for area in row["classes"]:
        cells |= {f"{kind}:{area['name']}": area[kind] for kind in CLASS_COLUMNS}
    for found in row.get("objects", ()):
        cells |= {f"{kind}:{found['name']}": found[kind] for kind in OBJECT_COLUMNS}
    return cells | {name: cell for name, cell in row["columns"].items() if name not in ours}

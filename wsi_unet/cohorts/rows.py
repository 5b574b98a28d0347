"""The rows of a cohort's report: what a slide's says, and how they are written and read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal

from wsi_unet import locations
from wsi_unet.cohorts.manifest import Listed
from wsi_unet.errors import WsiUnetError
from wsi_unet.segmentation.report import Report
from wsi_unet.storage.store import ByteStore

JSON_NAME = "cohort.json"
FORMAT_VERSION = 1
BEFORE_ROWS = b',\n "slides": [\n'
"""Comes between what is said of the whole cohort and the rows, one per line."""

Status = Literal["waiting", "running", "finished", "incomplete", "failed", "interrupted"]
Row = dict[str, Any]

WANTED = ("slide", "output", "model", "mpp", "tissue")
"""What tells whether an earlier row is about the same job; also the columns of a manifest."""

TIMES = ("seconds", "startup_seconds", "mpx_per_s", "blocks_per_s", "device_busy", "waits")
"""What a run that finds nothing left to do doesn't know better than the one before."""

CSV_COLUMNS = (
    *("slide", "output", "status", "error", "model", "mpp", "tissue", "label"),
    *("exactness", "inexact_because"),
    *("blocks", "blocks_done", "blocks_failed", "seconds", "startup_seconds", "mpx_per_s"),
    *("blocks_per_s", "device_busy"),
    *("read_seconds", "device_wait_seconds", "predict_seconds", "write_seconds"),
)
CLASS_COLUMNS = ("area_mm2", "pixels", "fraction")
"""Follow for each class, as "area_mm2:nuclei" and so on; then what the manifest had."""

EMPTY_ROW: Row = {
    **dict.fromkeys(("slide", "output", "status", "error", "model", "mpp", "tissue", "label")),
    **dict.fromkeys(("exactness", "inexact_because")),
    **dict.fromkeys(("blocks", *TIMES)),
    "classes": [],
    "warnings": [],
    "columns": {},
}


def read_rows(store: ByteStore) -> Iterator[Row]:
    """Yield the rows of a cohort's report; none where there is no report, or not one of ours.

    Raises:
        OutputError: it can't be read.
    """
    head, _, rows = (store.get(JSON_NAME) or b"").partition(BEFORE_ROWS)
    if read_header(head) is None:
        return
    for line in rows.splitlines():
        try:
            row = json.loads(line.removesuffix(b","))
        except ValueError:
            continue
        if isinstance(row, dict) and EMPTY_ROW.keys() <= row.keys():
            yield row


def read_header(head: bytes) -> Row | None:
    """Return what a report says of the whole cohort, from its bytes; None if it isn't one."""
    try:
        header = json.loads(head.partition(BEFORE_ROWS)[0] + b"}")
    except ValueError:
        return None
    known = isinstance(header, dict) and header.get("format_version") == FORMAT_VERSION
    return header if known else None


def in_one_line(error: Exception) -> str:
    """Return an error's message; its kind too, if it wasn't raised on purpose."""
    text = " ".join(str(error).split())
    return text if isinstance(error, WsiUnetError) else f"{type(error).__name__}: {text}"


def waiting_row(listed: Listed) -> Row:
    """Return the row of a slide of which nothing is known."""
    job, tissue = listed.job, listed.job.options.tissue
    return {
        **EMPTY_ROW,
        "slide": locations.resolve(job.slide),
        "output": locations.resolve(job.output or ""),
        "status": "waiting",
        "model": job.model,
        "mpp": job.options.mpp,
        "tissue": tissue if tissue in ("auto", "none") else locations.resolve(tissue),
        "columns": listed.columns,
    }


def still_holds(before: Row, row: Row) -> bool:
    """Whether an earlier row says that the job of `row` was finished."""
    return before["status"] == "finished" and all(before[name] == row[name] for name in WANTED)


def reported(report: Report) -> Row:
    """Return what a slide's report adds to its row."""
    failures = report.failures
    first = failures[0] if failures else None
    return {
        "status": report.state,
        "error": None
        if first is None
        else f"{len(failures)} failed block{'s' * (len(failures) > 1)}: {first.error}",
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
            {"name": one.name, **{kind: getattr(one, kind) for kind in ("value", *CLASS_COLUMNS)}}
            for one in report.classes
        ],
        "warnings": list(report.warnings),
    }


def to_line(row: Row) -> bytes:
    """Return a row as its line in cohort.json."""
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode()


def to_cells(row: Row, ours: Mapping[str, None]) -> Row:
    """Return a row as the cells of the table; the manifest's columns never hide ours."""
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
    }
    for one in row["classes"]:
        cells |= {f"{kind}:{one['name']}": one[kind] for kind in CLASS_COLUMNS}
    return cells | {name: cell for name, cell in row["columns"].items() if name not in ours}

"""All benchmarks as one table: `python -m benchmarks [name …]`, or `make bench`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.common import ROOT, Row, add_scale

PROGRAMS = {
    "startup": "start-up of commands",
    "importing": "importing a checkpoint",
    "reading": "reading windows",
    "scheduler": "the load that one Dask scheduler carries",
    "overhead": "a run without a network on 3 Gpx",
    "training": "training against its network alone",
    "exports_images": "results as OME-TIFF and OME-Zarr 0.4, of 205 and 822 Mpx",
    "measure": "regions of a result with a million objects",
    "objects": "finding the objects of finished labels",
    "exports": "exporting up to a million objects",
    "object_memory": "peak memory of finding up to ten million objects",
    "memory": "peak memory on a small and a large slide",
    "tiles": "the network by tile, number type and memory order",
    "comparison": "against a hand-written loop and MONAI",
    "cohort": "many small slides, and two worker processes",
    "end_to_end": "whole runs against the network alone",
}
"""The benchmarks, shortest first. `benchmarks.gpu` and `benchmarks.faults` are run on their own."""


def main() -> None:
    names = ", ".join(PROGRAMS)
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {names}; by default all")
    add_scale(parser)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args()
    for name in given.names:
        if name not in PROGRAMS:
            parser.error(f"no benchmark {name!r}; there are {names}")
    options = ["--repeats", str(given.repeats), "--patience", str(given.patience)]
    options += ["--tiny"] if given.tiny else []
    rows: list[Row] = []
    failed = []
    for name in given.names or PROGRAMS:
        print(f"{name}: {PROGRAMS[name]}", file=sys.stderr, flush=True)
        with subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{name}", *options],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process:
            rows += _read(process.stdout or iter(()))
        if process.returncode:
            failed.append(name)
        if given.json:
            given.json.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")
    Console(width=max(120, Console().width)).print(_table(rows))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _read(lines: Iterator[str]) -> Iterator[Row]:
    return (Row(**json.loads(line)) for line in lines)


def _table(rows: list[Row]) -> Table:
    table = Table(title="wsi-unet benchmarks: medians", show_lines=False)
    for heading in ("benchmark", "what", "median", "", "bar", "", "detail"):
        table.add_column(
            heading, overflow="fold", justify="right" if heading == "median" else "left"
        )
    for row in rows:
        bars = (("≥", row.least), ("<", row.most))
        bar = " ".join(f"{sign} {value:g}" for sign, value in bars if value is not None)
        table.add_row(
            row.benchmark, row.what, f"{row.value:.3g}", row.unit, bar, row.verdict, row.detail
        )
    return table


if __name__ == "__main__":
    main()

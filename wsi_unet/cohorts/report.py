"""The report of a cohort, one row per slide: cohort.csv for users, cohort.json for programs.

Both are always complete: every slide has its row before the first one starts. They are replaced
whole and atomically as slides end, but so rarely that this takes no more than a fiftieth of the
time, however many slides there are. A row is held as the bytes of its line in cohort.json, which
keeps ten thousand rows small.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

from wsi_unet.cohorts.cohort import CohortSlide
from wsi_unet.cohorts.rows import (
    BEFORE_ROWS,
    CLASS_COLUMNS,
    CSV_COLUMNS,
    JSON_NAME,
    OBJECT_COLUMNS,
    TIMES,
    Row,
    describe_error,
    encode_row,
    flatten_row,
    is_still_finished,
    make_waiting_row,
    read_report_rows,
    summarise_report,
)
from wsi_unet.cohorts.stored import FORMAT_VERSION, Status
from wsi_unet.csv_cells import guard_cell
from wsi_unet.errors import OutputError
from wsi_unet.locations import Location
from wsi_unet.segmentation.report import CohortProgress
from wsi_unet.segmentation.runs.jobs import SlideJob, SlideOutcome
from wsi_unet.storage.locking.lock import OutputLock, acquire
from wsi_unet.storage.opening import open_store

CSV_NAME = "cohort.csv"

SHORTEST_PAUSE = 2.0
"""Seconds between two updates, at least."""

LARGEST_SHARE = 0.02
"""Share of the time that updates may take."""

CohortState = Literal["running", "finished", "unfinished", "interrupted"]


class CohortReport:
    """The rows of a cohort, and the two files that show them.

    Args:
        folder: path or URL of the folder that the files go into.
        slides: every slide of the cohort.
        skipped: folders that couldn't be searched for slides, one line each.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | Location,
        slides: Sequence[CohortSlide],
        *,
        skipped: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = open_store(folder)
        self._slides = slides
        self._skipped = list(skipped)
        self._clock = clock
        self._lock: OutputLock | None = None
        self._rows: list[bytes] = []
        self._numbers: dict[str | None, int] = {}
        self._by_output: dict[str, int] = {}
        self._warned: set[int] = set()
        self._before: dict[int, bytes] = {}
        self._counts: Counter[Status] = Counter()
        self._classes: dict[str, None] = {}
        self._object_classes: dict[str, None] = {}
        self._names: dict[str, None] = {}
        self._progress: CohortProgress | None = None
        self._next = 0.0
        self._changed = False

    @property
    def counts(self) -> dict[Status, int]:
        """Number of slides by status; a status that no slide has is left out."""
        return {status: count for status, count in self._counts.items() if count}

    @property
    def csv_path(self) -> str:
        """Path or URL of cohort.csv."""
        return str(Location.parse(str(self._store)) / CSV_NAME)

    def begin(self) -> None:
        """Lock the folder and write both files for the first time.

        What an earlier run of the same slides has finished stays in its rows until this run has
        looked at it.

        Raises:
            LockedError: another run uses the same folder.
            OutputError: the folder can't be written to.
        """
        self._lock = acquire(self._store)
        try:
            rows = read_report_rows(self._store)
            self._fill({row["output"]: encode_row(row) for row in rows})
            self._write("running")
        except BaseException:
            self._lock.release()
            self._lock = None
            raise

    def _fill(self, earlier: dict[str, bytes]) -> None:
        """Make the rows of all slides.

        Args:
            earlier: the rows of an earlier run, by output.
        """
        for number, slide in enumerate(self._slides):
            row = make_waiting_row(slide)
            if slide.error is None:
                before: Row = json.loads(earlier.pop(row["output"], b"{}"))
                if before and not slide.job.overwrite and is_still_finished(before, row):
                    row |= {name: before[name] for name in before.keys() - {"columns"}}
                self._numbers[slide.job.output] = number
                self._by_output[row["output"]] = number
            self._rows.append(encode_row(row))
            self._counts[row["status"]] += 1
            self._note_classes(row)
            self._names |= dict.fromkeys(slide.names)

    def _note_classes(self, row: Row) -> None:
        """Note the classes of a row, which have columns of their own."""
        self._classes |= dict.fromkeys(area["name"] for area in row["classes"])
        self._object_classes |= dict.fromkeys(found["name"] for found in row.get("objects", ()))

    def jobs(self) -> Collection[SlideJob]:
        """Return the slides' jobs for `segment_cohort`, which takes them one by one.

        When it takes the first, the report is begun: what goes wrong with the cluster before that
        changes nothing here. Each slide that is taken is noted as running.
        """
        return _NotedJobs(self, [slide.job for slide in self._slides if slide.error is None])

    def note_running(self, job: SlideJob) -> None:
        """Note that a slide is being worked on."""
        number = self._numbers[job.output]
        self._before[number] = self._rows[number]
        self._change_row(number, {"status": "running"})

    def add_outcome(self, outcome: SlideOutcome) -> Row:
        """Record a slide's outcome and return its row; update the files if it is time."""
        number = self._numbers[outcome.job.output]
        self._before.pop(number, None)
        report = outcome.report
        changes: Row = {"status": "failed", "error": None}
        if report is not None:
            changes |= summarise_report(report)
            if report.blocks.done == report.blocks.resumed and self._decode_row(number)["seconds"]:
                changes = {name: changes[name] for name in changes.keys() - set(TIMES)}
            self._note_classes(changes)
        if outcome.error is not None:
            changes["error"] = describe_error(outcome.error)
        row = self._change_row(number, changes)
        self._update()
        return row

    def add_progress(self, progress: CohortProgress) -> None:
        """Note how far the whole cohort is; update the files if it is time."""
        before, self._progress = self._progress, progress
        for run in progress.active:
            number = self._by_output.get(run.output)
            if number is not None and run.warnings and number not in self._warned:
                self._warned.add(number)
                self._change_row(number, {"warnings": list(run.warnings)})
        self._changed |= before is not None and before.blocks_done != progress.blocks_done
        self._update()

    @property
    def finished(self) -> bool:
        """Whether every slide is finished."""
        return self._counts["finished"] == len(self._slides)

    def close(self, *, interrupted: bool = False) -> None:
        """Write both files for the last time and unlock the folder.

        Args:
            interrupted: whether the run was ended early on purpose.

        Raises:
            OutputError: the files can't be written.
        """
        if self._lock is None:
            return
        try:
            for number, line in self._before.items():  # these never ended
                self._change_row(number, {"status": json.loads(line)["status"]})
            finished: CohortState = "finished" if self.finished else "unfinished"
            self._write("interrupted" if interrupted else finished)
        finally:
            self._lock.release()
            self._lock = None

    def lines(self) -> Iterator[bytes]:
        """Return every row as it is now, as JSON, in the order of the slides."""
        return iter(self._rows)

    def _decode_row(self, number: int) -> Row:
        row: Row = json.loads(self._rows[number])
        return row

    def _change_row(self, number: int, changes: Row) -> Row:
        row = self._decode_row(number)
        self._counts[row["status"]] -= 1
        row |= changes
        self._counts[row["status"]] += 1
        self._rows[number] = encode_row(row)
        self._changed = True
        return row

    def _update(self) -> None:
        """Write the files if something is new and the last time is long enough ago."""
        if not self._changed or self._lock is None or self._clock() < self._next:
            return
        try:
            self._write("running")
        except OutputError:  # a full disk, a store that is away: later, or at the end
            self._next = self._clock() + SHORTEST_PAUSE

    def _write(self, state: CohortState) -> None:
        started = self._clock()
        if self._lock is not None and self._lock.lost:
            raise OutputError(
                f"{self.csv_path}: another run has taken this folder over, because this one "
                "had stopped responding; the report is the other run's now"
            )
        self._store.put(JSON_NAME, self._encode_json(state))
        self._store.put(CSV_NAME, self._encode_csv())
        self._changed = False
        ended = self._clock()
        self._next = ended + max(SHORTEST_PAUSE, (ended - started) / LARGEST_SHARE)

    def _encode_json(self, state: CohortState) -> bytes:
        progress = self._progress and self._describe_progress(self._progress, state)
        header = {
            "format_version": FORMAT_VERSION,
            "wsi_unet": version("wsi-unet"),
            "state": state,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "skipped": self._skipped,
            "counts": self.counts,
            "progress": progress,
        }
        head = json.dumps(header, indent=1).removesuffix("\n}").encode()
        return head + BEFORE_ROWS + b",\n".join(self._rows) + b"\n]}\n"

    def _describe_progress(self, progress: CohortProgress, state: CohortState) -> dict[str, Any]:
        """Return the progress; its slides are those of the counts, whoever finished them."""
        document = asdict(progress)
        del document["active"]
        left = self._counts["waiting"] + self._counts["running"]
        ended = len(self._slides) - left
        document |= {
            "slides_total": len(self._slides),
            "slides_done": ended,
            "slides_failed": ended - self._counts["finished"],
        }
        return document if state == "running" else document | {"blocks_in_flight": 0}

    def _encode_csv(self) -> bytes:
        classes = [f"{kind}:{name}" for name in self._classes for kind in CLASS_COLUMNS]
        objects = [f"{kind}:{name}" for name in self._object_classes for kind in OBJECT_COLUMNS]
        ours = dict.fromkeys((*CSV_COLUMNS, *classes, *objects))
        names = [*ours, *(name for name in self._names if name not in ours)]
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(map(guard_cell, names))
        for row in map(json.loads, self._rows):
            cells = flatten_row(row, ours)
            writer.writerow(_write_cell(cells.get(name)) for name in names)
        return text.getvalue().encode()


def _write_cell(value: Any) -> Any:
    """Return a value as it is written into the table; what a spreadsheet would run is guarded."""
    return guard_cell(value) if isinstance(value, str) else value


class _NotedJobs(Collection[SlideJob]):
    """The jobs of a report's slides; notes in the report which were taken."""

    def __init__(self, report: CohortReport, jobs: Sequence[SlideJob]) -> None:
        self._report = report
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job: object) -> bool:
        return job in self._jobs

    def __iter__(self) -> Iterator[SlideJob]:
        self._report.begin()
        for job in self._jobs:
            self._report.note_running(job)
            yield job

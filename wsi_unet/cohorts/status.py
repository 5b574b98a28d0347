"""The status of the outputs in a folder: those of its cohort's report, and others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from wsi_unet.cohorts.places import is_inside, resolve_links
from wsi_unet.cohorts.rows import JSON_NAME, MOST_BYTES, Row, read_header, read_report_rows
from wsi_unet.errors import OutputError
from wsi_unet.locations import Location
from wsi_unet.segmentation.report import BlockCounts, Waits
from wsi_unet.segmentation.runs.output import is_finished
from wsi_unet.segmentation.status import RunStatus, Writer, read_writer, run_status
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.opening import open_store

SlideState = Literal["waiting", "unfinished", "incomplete", "finished", "failed"]


@dataclass(frozen=True)
class OutputStatus:
    """How far one output is.

    Attributes:
        output: path or URL of the output store.
        slide: the slide's file name.
        state: "waiting" (nothing is there yet), "failed" (nothing is there, because the slide
            failed), "unfinished", "incomplete" (blocks failed) or "finished".
        blocks: label blocks; None where no run has started.
        failures: how many blocks failed, the image's too.
        mpx_per_s: level-0 pixels per second, in millions: of the whole run where the report has
            it, otherwise of a single thread.
        waits: what the blocks spent their time on.
        inexact_because: why tiling can change a label; empty where it can't.
        error: what went wrong with the slide, according to the report.
        writer: the process that writes to the output now.
    """

    output: str
    slide: str
    state: SlideState
    blocks: BlockCounts | None = None
    failures: int = 0
    mpx_per_s: float = 0.0
    waits: Waits = field(default_factory=Waits)
    inexact_because: str = ""
    error: str | None = None
    writer: Writer | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON-able values."""
        return asdict(self)


def is_cohort(folder: str | os.PathLike[str] | Location) -> bool:
    """Return whether a folder holds outputs, rather than being one.

    Raises:
        OutputError: it can't be looked at.
    """
    location = Location.parse(folder)
    store = open_store(location)
    if store.get("zarr.json") is not None:
        return False
    return store.get(JSON_NAME) is not None or next(_find_outputs(location), None) is not None


def read_cohort_header(folder: str | os.PathLike[str] | Location) -> Row | None:
    """Return what a cohort's report says about the whole cohort; None where there is no report.

    Raises:
        OutputError: it can't be read.
    """
    content = open_store(folder).get(JSON_NAME, MOST_BYTES)
    return None if content is None else read_header(content)


def read_cohort_status(
    folder: str | os.PathLike[str] | Location, *, verify: bool = False, forget: bool = False
) -> Iterator[OutputStatus]:
    """Yield the status of each output of a folder.

    The outputs of the cohort's report come first, then others that lie in the folder. Of an
    output that the report calls finished, only the finished mark is read, unless `verify` is set.

    Args:
        folder: path or URL of the folder; in an object store only the report's outputs are known.
        verify: as for `run_status`, for every output.
        forget: likewise, of those that lie in the folder.

    Raises:
        OutputError: something can't be read.
    """
    location = Location.parse(folder)
    known: set[str] = set()
    for row in read_report_rows(open_store(location)):
        known.add(row["output"])
        yield _read_reported(row, verify=verify, forget=forget, folder=location)
    for output in _find_outputs(location):
        if output not in known:
            yield _read_stored(Location.parse(output), verify=verify, forget=forget)


def _read_reported(row: Row, *, verify: bool, forget: bool, folder: Location) -> OutputStatus:
    """Return the status of an output that the report lists.

    Whoever wrote the report may have named any output; one outside of the folder isn't changed.
    """
    if row.get("refused"):
        slide = row["slide"] or ""
        return OutputStatus(output="", slide=slide, state="failed", error=row["error"])
    output, slide = Location.parse(row["output"]), Location.parse(row["slide"]).name
    if forget and not is_inside(resolve_links(output).text, resolve_links(folder).text):
        status = _read_reported(row, verify=verify, forget=False, folder=folder)
        if status.state == "finished":
            return status
        where = f"{output} isn't below {folder}, so nothing of it is forgotten; give it by itself"
        return replace(status, error=where)
    store = open_store(output)
    if row["status"] == "finished" and not verify and is_finished(store, row["label"]):
        return OutputStatus(
            output=str(output),
            slide=slide,
            state="finished",
            blocks=BlockCounts(**row["blocks"]),
            mpx_per_s=row["mpx_per_s"],
            waits=Waits(**row["waits"]),
            inexact_because=row["inexact_because"] or "",
        )
    if store.get("zarr.json") is not None:
        return _read_stored(
            output, verify=verify, forget=forget, label=row["label"], error=row["error"]
        )
    failed = row["status"] == "failed"
    return OutputStatus(
        output=str(output),
        slide=slide,
        state="failed" if failed else "waiting",
        error=row["error"],
        writer=read_writer(output),
    )


def _read_stored(
    output: Location,
    *,
    verify: bool,
    forget: bool,
    label: str | None = None,
    error: str | None = None,
) -> OutputStatus:
    """Return the status of an output that exists.

    Args:
        output: where it is.
        verify: read every shard and compare its checksum.
        forget: remove the markers of damaged blocks.
        label: the run that counts; None is all of them.
        error: what went wrong, according to the report.
    """
    writer = read_writer(output)
    try:
        runs = run_status(output, verify=verify, forget=forget)
    except OutputError as refusal:  # being laid out, or of another version: no reason to stop
        return OutputStatus(
            str(output), output.name, "unfinished", error=str(refusal), writer=writer
        )
    labels = [run for run in runs if run.model is not None and label in (None, run.label)]
    counted = [run for run in runs if run.model is None] + labels
    blocks = [run.blocks for run in labels]
    seconds = sum(run.seconds for run in labels)
    return OutputStatus(
        output=str(output),
        slide=runs[0].slide,
        state=_summarise_states(counted) if labels else "unfinished",
        blocks=BlockCounts(
            total=sum(counts.total for counts in blocks),
            done=sum(counts.done for counts in blocks),
            resumed=0,
            failed=sum(counts.failed for counts in blocks),
            empty=sum(counts.empty for counts in blocks),
        ),
        failures=sum(len(run.failures) for run in counted),
        mpx_per_s=sum(run.mpx_per_s * run.seconds for run in labels) / seconds if seconds else 0.0,
        waits=sum((run.waits for run in labels), start=Waits()),
        inexact_because="; ".join(run.inexact_because for run in labels if run.inexact_because),
        error=error,
        writer=writer,
    )


def _summarise_states(runs: list[RunStatus]) -> SlideState:
    states = {run.state for run in runs}
    if states == {"finished"}:
        return "finished"
    return "incomplete" if "incomplete" in states else "unfinished"


def _find_outputs(folder: Location) -> Iterator[str]:
    """Yield the paths of our outputs in a folder and below it, sorted folder by folder."""
    if folder.is_url:
        return
    for path, folders, files in os.walk(folder.path):
        if "zarr.json" in files or ".zgroup" in files:
            if BOOKKEEPING in folders and path != str(folder):
                yield path
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))

"""How far the outputs of a folder are: those that its cohort's report lists, and others in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from wsi_unet import locations
from wsi_unet.cohorts.rows import JSON_NAME, Row, read_header, read_rows
from wsi_unet.errors import OutputError
from wsi_unet.segmentation.dispatch.output import is_finished
from wsi_unet.segmentation.report import BlockCounts, Waits
from wsi_unet.segmentation.status import RunStatus, Writer, read_writer, run_status
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.opening import open_store

SlideState = Literal["waiting", "unfinished", "incomplete", "finished", "failed"]


@dataclass(frozen=True)
class OutputStatus:
    """How far one output is.

    Attributes:
        output: the output store.
        slide: the slide's file name.
        state: "waiting" (nothing of it is there yet), "failed" (nor ever was), "unfinished",
            "incomplete" (blocks failed) or "finished".
        blocks: label blocks; None where no run has begun.
        failures: how many blocks failed, the image's too.
        mpx_per_s: level-0 pixels per second, in millions; of the run where its report is there,
            else per thread.
        waits: what the blocks spent their time on.
        inexact_because: why tiling can change a label; empty where it can't.
        error: what went wrong with the slide, as the report has it.
        writer: who writes to it now.
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


def is_cohort(folder: str | Path) -> bool:
    """Whether a folder holds outputs rather than being one.

    Raises:
        OutputError: if it can't be looked at.
    """
    store = open_store(folder)
    if store.get("zarr.json") is not None:
        return False
    return store.get(JSON_NAME) is not None or next(_outputs_below(str(store)), None) is not None


def cohort_header(folder: str | Path) -> Row | None:
    """Return what a cohort's report says of the whole; None where there is none.

    Raises:
        OutputError: if it can't be read.
    """
    content = open_store(folder).get(JSON_NAME)
    return None if content is None else read_header(content)


def cohort_status(folder: str | Path, *, verify: bool = False) -> Iterator[OutputStatus]:
    """Yield how far each output of a folder is.

    First those of the cohort's report, then others that lie in the folder. What the report calls
    finished is only asked whether it still says so itself, unless it is to be verified.

    Args:
        folder: the folder, or a URL; in an object store only the report tells what there is.
        verify: as for `run_status`, of every output.

    Raises:
        OutputError: if something can't be read.
    """
    store = open_store(folder)
    known: set[str] = set()
    for row in read_rows(store):
        known.add(row["output"])
        yield _known(row, verify=verify)
    for output in _outputs_below(str(store)):
        if output not in known:
            yield _found(output, verify=verify)


def _known(row: Row, *, verify: bool) -> OutputStatus:
    """Return the status of an output that the report lists."""
    output, slide = row["output"], locations.name(row["slide"])
    store = open_store(output)
    if row["status"] == "finished" and not verify and is_finished(store, row["label"]):
        return OutputStatus(
            output=output,
            slide=slide,
            state="finished",
            blocks=BlockCounts(**row["blocks"]),
            mpx_per_s=row["mpx_per_s"],
            waits=Waits(**row["waits"]),
            inexact_because=row["inexact_because"] or "",
        )
    if store.get("zarr.json") is not None:
        return _found(output, verify=verify, label=row["label"], error=row["error"])
    failed = row["status"] == "failed"
    return OutputStatus(
        output=output,
        slide=slide,
        state="failed" if failed else "waiting",
        error=row["error"],
        writer=read_writer(output),
    )


def _found(
    output: str, *, verify: bool, label: str | None = None, error: str | None = None
) -> OutputStatus:
    """Return the status of an output that is there.

    Args:
        output: its location.
        verify: read everything back.
        label: the label group that counts; None is all of them.
        error: what the report says went wrong.
    """
    writer = read_writer(output)
    try:
        runs = run_status(output, verify=verify)
    except OutputError as refusal:  # being laid out, or of another version: one output's affair
        return OutputStatus(output, locations.name(output), "unfinished", error=str(refusal),
                            writer=writer)  # fmt: skip
    labels = [run for run in runs if run.model is not None and label in (None, run.label)]
    counted = [run for run in runs if run.model is None] + labels
    blocks = [run.blocks for run in labels]
    seconds = sum(run.seconds for run in labels)
    return OutputStatus(
        output=output,
        slide=runs[0].slide,
        state=_state(counted) if labels else "unfinished",
        blocks=BlockCounts(
            total=sum(one.total for one in blocks),
            done=sum(one.done for one in blocks),
            resumed=0,
            failed=sum(one.failed for one in blocks),
            empty=sum(one.empty for one in blocks),
        ),
        failures=sum(len(run.failures) for run in counted),
        mpx_per_s=sum(run.mpx_per_s * run.seconds for run in labels) / seconds if seconds else 0.0,
        waits=sum((run.waits for run in labels), start=Waits()),
        inexact_because="; ".join(run.inexact_because for run in labels if run.inexact_because),
        error=error,
        writer=writer,
    )


def _state(runs: list[RunStatus]) -> SlideState:
    states = {run.state for run in runs}
    if states == {"finished"}:
        return "finished"
    return "incomplete" if "incomplete" in states else "unfinished"


def _outputs_below(folder: str) -> Iterator[str]:
    """Yield the outputs of ours in a folder and below it, sorted folder by folder."""
    if locations.is_url(folder):
        return
    for place, folders, files in os.walk(folder):
        if "zarr.json" in files or ".zgroup" in files:
            if BOOKKEEPING in folders and place != folder:
                yield place
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))

"""The status of an output's runs, which anyone who can read it may ask for at any time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from wsi_unet.corrections.status import EditStatus, read_edit_status
from wsi_unet.errors import OptionError, OutputError
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels import contents
from wsi_unet.labels.names import IMAGE_NAME
from wsi_unet.labels.progress import BlockMarker, Progress
from wsi_unet.locations import Location
from wsi_unet.objects.status import ObjectStatus, read_object_status
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters, read_parameters
from wsi_unet.segmentation.report import BlockCounts, Failure, Waits
from wsi_unet.segmentation.runs.output import are_labels_described, is_finished, mark_unfinished
from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.locking.lock import STALE_SECONDS, LockOwner, LockRecord, acquire
from wsi_unet.storage.locking.record import MOST_LOCK_BYTES
from wsi_unet.storage.opening import open_store
from wsi_unet.storage.store import ByteStore


@dataclass(frozen=True)
class Writer:
    """The process that writes to an output, or did until it died.

    Attributes:
        who: the process, as in "process 123 of user@host".
        since: when it started to; UTC, ISO 8601.
        silent_seconds: time since its last heartbeat, by the two machines' clocks.
        alive: whether it still seems to be there.
    """

    who: str
    since: str
    silent_seconds: float
    alive: bool


def read_writer(output: str | os.PathLike[str] | Location) -> Writer | None:
    """Return the process that writes to an output, or to a cohort's folder; None if there is none.

    Raises:
        OutputError: it can't be read.
    """
    record = LockRecord.parse(open_store(output).get(LOCK_KEY, MOST_LOCK_BYTES))
    if record is None:
        return None
    owner, runs = record.owner, record.owner.is_running()
    silent = max(0.0, (datetime.now(UTC) - record.beat_time).total_seconds())
    return Writer(
        who=f"process {owner.pid} of {owner.user}@{owner.host}",
        since=record.since.isoformat(timespec="seconds"),
        silent_seconds=silent,
        alive=silent < STALE_SECONDS if runs is None else runs,
    )


@dataclass(frozen=True)
class RunStatus:
    """The status of one label group, or of the image.

    Attributes:
        label: name of the run, or "image".
        slide: the slide's file name.
        model: the model's name; None for the image.
        groups: the label groups that the run fills.
        exactness: "exact" or "approximate": whether tiling can change a label; None for the image.
        inexact_because: why tiling can change a label; empty where it can't.
        state: "finished", "incomplete" (blocks failed) or "unfinished" (blocks are left).
        blocks: how many blocks there are, and what became of them.
        seconds: how long the done blocks took, summed over blocks.
        mpx_per_s: level-0 pixels of the done blocks, in millions per second of `seconds`.
        blocks_per_s: done blocks per second in which any was being computed; 0 where unknown.
        device_busy: share of the time in which a worker was computing blocks that its device was
            in use, 0 to 1.
        waits: what `seconds` was spent on.
        failures: failed blocks.
        damaged: blocks whose shards aren't what was written; with `forget` their markers were
            removed.
        missing: what is missing although all blocks are done, in words; "" if nothing is.
        objects: the objects of each label group, as far as they were asked for.
        edited: the objects of each label group as people have corrected them, as far as these were
            imported.
    """

    label: str
    slide: str
    model: str | None
    groups: tuple[str, ...]
    exactness: Literal["exact", "approximate"] | None
    inexact_because: str
    state: Literal["finished", "incomplete", "unfinished"]
    blocks: BlockCounts
    seconds: float
    mpx_per_s: float
    blocks_per_s: float
    device_busy: float
    waits: Waits
    failures: tuple[Failure, ...]
    damaged: tuple[BlockIndex, ...]
    missing: str = ""
    objects: tuple[ObjectStatus, ...] = ()
    edited: tuple[EditStatus, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON-able values."""
        return asdict(self)


def run_status(
    output: str | os.PathLike[str] | Location, *, verify: bool = False, forget: bool = False
) -> list[RunStatus]:
    """Return the status of every run of an output, the label groups first, then the image.

    Nothing is written unless `forget` is set.

    Args:
        output: path or URL of the output store.
        verify: read every shard and compare its checksum. Without `verify` only the shards'
            lengths are compared.
        forget: remove the markers of damaged blocks, so that the next run computes them again;
            needs `verify`, and that no run is writing to the output.

    Raises:
        OptionError: `forget` without `verify`.
        OutputError: there is no output of wsi-unet, or it can't be written to.
        LockedError: `forget`, and a run is writing to it.
    """
    if forget and not verify:
        raise OptionError("`forget` needs `verify`, which finds the damage", option="forget")
    store = contents.open_output(output)
    with acquire(store, owner=LockOwner.current("forget damage")) if forget else nullcontext():
        statuses = [
            _read_status(progress, parameters, verify=verify, forget=forget)
            for progress, parameters in _find_runs(store)
        ]
    if not statuses:
        raise OutputError(f"{output}: no run has started here; segment a slide to start one")
    return statuses


def _find_runs(store: ByteStore) -> Iterator[tuple[Progress, LabelParameters | ImageParameters]]:
    """Yield the progress and the parameters of every run, the image's last."""
    for name in contents.read_run_names(store):
        labels = read_parameters(Progress(store, name), LabelParameters)
        if labels is not None:
            yield Progress(store, name, labels.layout), labels
    image = read_parameters(Progress(store, IMAGE_NAME), ImageParameters)
    if image is not None:
        yield Progress(store, IMAGE_NAME, image.layout), image


def _read_status(
    progress: Progress,
    parameters: LabelParameters | ImageParameters,
    *,
    verify: bool,
    forget: bool,
) -> RunStatus:
    labels = parameters if isinstance(parameters, LabelParameters) else None
    indices, signature = set(parameters.blocks()), parameters.signature()
    found = progress.read_markers(signature)
    markers = [m for m in found if m.block in indices and parameters.covers_block(m)]
    done: list[BlockMarker] = []
    damaged: list[BlockMarker] = []
    for marker, sound in progress.check_shards(markers, contents=verify):
        (done if sound else damaged).append(marker)
    tail = progress.read_tail(signature)
    tail_sound = tail is not None and all(
        sound for _, sound in progress.check_shards([tail], contents=verify)
    )
    finished = _is_finished(progress, parameters)
    missing = "" if finished else _explain_unfinished(progress, parameters)
    if not tail_sound:
        missing = "the small levels are missing or damaged"
    complete = len(done) == len(indices) and not missing
    if forget:
        for marker in damaged:
            progress.forget_block(marker.block)
        if not tail_sound:
            progress.forget_tail()
        if finished and labels is not None and not complete:
            mark_unfinished(progress.store, progress.name)
    failures = tuple(
        Failure(failure.block, failure.error)
        for failure in progress.read_failures()
        if failure.block in indices
    )
    pixels = sum(box.area for marker in done for box in marker.covered(parameters.grid))
    seconds = sum(sum(marker.seconds.values()) for marker in done)
    blocks_per_s, device_busy = measure_rates(done)
    return RunStatus(
        label=progress.name,
        slide=parameters.slide.name,
        model=None if labels is None else labels.model.name,
        groups=() if labels is None else labels.label_groups,
        exactness=None if labels is None else labels.exactness,
        inexact_because="" if labels is None else labels.inexact_because,
        state="finished" if complete else "incomplete" if failures else "unfinished",
        blocks=BlockCounts(
            total=len(indices),
            done=len(done),
            resumed=0,
            failed=len(failures),
            empty=sum(marker.empty for marker in done),
        ),
        seconds=seconds,
        mpx_per_s=pixels / seconds / 1e6 if seconds else 0.0,
        blocks_per_s=blocks_per_s,
        device_busy=device_busy,
        waits=sum(map(Waits.from_marker, done), start=Waits()),
        failures=failures,
        damaged=tuple(sorted(marker.block for marker in damaged)),
        missing=missing if len(done) == len(indices) else "",
        objects=()
        if labels is None
        else tuple(read_object_status(progress.store, labels.label, labels.label_groups, verify)),
        edited=()
        if labels is None
        else tuple(read_edit_status(progress.store, labels.label, labels.label_groups, verify)),
    )


def measure_rates(markers: Sequence[BlockMarker]) -> tuple[float, float]:
    """Return blocks per second, and the share of the time that devices were in use.

    Only time in which blocks were being computed counts, so a pause between two runs doesn't.

    >>> measure_rates([])
    (0.0, 0.0)
    """
    timed = [marker for marker in markers if marker.ended]
    spans = [(marker.ended - sum(marker.seconds.values()), marker.ended) for marker in timed]
    by_worker: dict[str, list[tuple[float, float]]] = {}
    for marker, span in zip(timed, spans, strict=True):
        by_worker.setdefault(marker.worker, []).append(span)
    together, worked = measure_cover(spans), sum(map(measure_cover, by_worker.values()))
    busy = sum(marker.seconds.get("predict", 0.0) for marker in timed)
    return (
        len(timed) / together if together else 0.0,
        min(1.0, busy / worked) if worked else 0.0,
    )


def measure_cover(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length that intervals cover together.

    >>> measure_cover([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    total, end = 0.0, -math.inf
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def _explain_unfinished(progress: Progress, parameters: LabelParameters | ImageParameters) -> str:
    """Return what is missing of arrays that aren't finished, beside their blocks."""
    if isinstance(parameters, LabelParameters) and are_labels_described(progress.store, parameters):
        return "the labels aren't marked as finished"
    return "metadata (zarr.json) is missing or damaged"


def _is_finished(progress: Progress, parameters: LabelParameters | ImageParameters) -> bool:
    """Return whether the metadata is all there, and says of labels that they are finished."""
    if isinstance(parameters, LabelParameters):
        described = are_labels_described(progress.store, parameters)
        return described and is_finished(progress.store, progress.name)
    return contents.is_described(progress.store, "", parameters.pyramid, channels=3)

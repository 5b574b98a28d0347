"""The runs of a result, followed while they compute: which blocks are done, at what speed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockGrid, BlockIndex
from wsi_unet.labels.documents import DamagedError
from wsi_unet.labels.progress import BlockMarker, Progress
from wsi_unet.labels.pyramid import MOST_BLOCKS
from wsi_unet.predicted_area import is_mask_of
from wsi_unet.segmentation.parameters import LabelParameters, read_parameters
from wsi_unet.slides.tissue.mask import TissueMask
from wsi_unet.storage.concurrent import map_concurrently
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.store import ByteStore
from wsi_unet.viewer.groups import ViewedGroup
from wsi_unet.viewer.run_states import Look, RunStates

RATE_SECONDS = 60.0
"""The speed of a run is that of its blocks of so many seconds."""

_BLOCK_FILE = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.json")


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    Attributes:
        total: number of its blocks.
        done: those that are done.
        failed: those that failed.
        mpx_per_s: level-0 pixels of the labels per second, in millions; None where unknown.
        seconds_left: what is left to do takes about so long; None where unknown.
    """

    total: int
    done: int
    failed: int
    mpx_per_s: float | None
    seconds_left: float | None


class ViewedRun:
    """A run that made label groups.

    Attributes:
        name: its name.
        groups: its label groups.
        states: what is known of its blocks, as of the last look.
        known: whether its progress is kept beside the labels, so that it says where it looked.
        version: grows whenever `states` changes.
    """

    def __init__(self, store: ByteStore, name: str, groups: Sequence[ViewedGroup]) -> None:
        """Open a run and look at its blocks.

        Raises:
            OutputError: what is known of it is damaged.
        """
        self.name = name
        self.groups = tuple(groups)
        self.version = 0
        self._store = store
        self._grid = BlockGrid(groups[0].labels.pyramid.shape, groups[0].labels.pyramid.block)
        if len(self._grid) > MOST_BLOCKS:
            raise DamagedError(
                f"{store}: 'labels/{groups[0].name}' has {len(self._grid)} blocks, more than any "
                "slide; segment again with `overwrite=True`"
            )
        self._finished = all(group.finished is not None for group in groups)
        self._progress = Progress(store, name)
        self._record = self._progress.read_run()
        self._parameters = self._read_parameters()
        self._mask = self._read_mask()
        self._markers: dict[BlockIndex, BlockMarker] = {}
        self._failures: dict[BlockIndex, str] = {}
        self.states = RunStates.whole(self._grid, self._mask)
        if self._needs_markers:
            self.look()

    @property
    def known(self) -> bool:
        """Whether its progress is kept beside the labels."""
        return self._record is not None

    @property
    def live(self) -> bool:
        """Whether blocks may still be computed."""
        return not self._finished and self.known

    @property
    def slide_path(self) -> str | None:
        """Where the run found its slide; None if it doesn't say."""
        slide = self._slide
        path = slide.get("path") if slide is not None else None
        return path if isinstance(path, str) else None

    @property
    def reader(self) -> tuple[str, str | None]:
        """The reader that opened the slide, and the series of it that was asked for."""
        slide = self._slide or {}
        reader, series = slide.get("reader"), slide.get("series")
        return str(reader or "auto"), series if isinstance(series, str) else None

    @property
    def _slide(self) -> Mapping[str, Any] | None:
        slide = self._record.parameters.get("slide") if self._record is not None else None
        return slide if isinstance(slide, dict) else None

    @property
    def _needs_markers(self) -> bool:
        if self._record is None:
            return False
        return not self._finished or bool(self._record.parameters.get("regions"))

    def _read_parameters(self) -> LabelParameters | None:
        """Return the run's parameters; None of runs of other versions, which are shown as well."""
        try:
            parameters = read_parameters(self._progress, LabelParameters)
        except DamagedError:
            return None
        if parameters is not None and parameters.grid == self._grid:
            return parameters
        return None

    def _read_mask(self) -> TissueMask | None:
        tissue = str(self._record.parameters.get("tissue", "none")) if self._record else "none"
        if tissue == "none":
            return None
        mask = self._progress.read_mask()
        if mask is None or not is_mask_of(mask, tissue):
            raise OutputError(
                f"{self._store}: the tissue mask of {self.name!r} is missing or belongs to another "
                "run; run the same segmentation again, which restores it"
            )
        return mask

    def look(self) -> list[BlockIndex]:
        """Look at the markers, of which only new ones are read; return the blocks that changed."""
        assert self._record is not None
        names = self._list("blocks")
        fresh = [index for index in names if index not in self._markers]
        signature = self._record.signature
        found = map_concurrently(
            lambda index: (index, self._progress.read_marker(index, signature)),
            fresh,
            self._store.location,
        )
        kept = set(names)
        self._markers = {i: m for i, m in self._markers.items() if i in kept}
        self._markers |= {index: marker for index, marker in found if marker is not None}
        failed = self._list("failures")
        if set(failed) != self._failures.keys():
            self._failures = {f.block: f.error for f in self._progress.read_failures()}
        states = RunStates.collect(
            self._grid,
            self._mask,
            self._planned(),
            self._markers.values(),
            self._failures,
            finished=self._finished,
            is_whole=self._is_whole,
        )
        changed = states.list_changed(self.states)
        if changed:
            self.states = states  # first, so that nothing old is kept under the new version
            self.version += 1
        return changed

    def measure_progress(self, now: Callable[[], float] = time.time) -> RunProgress:
        """Return how far the run is, as of the last look.

        Its speed is that of the blocks that ended in the last `RATE_SECONDS`.
        """
        blocks = self.states.blocks
        total = len(self._planned())
        done = int(np.count_nonzero(blocks == Look.LOOKED)) if not self._finished else total
        failed = int(np.count_nonzero(blocks == Look.FAILED))
        recent = [m for m in self._markers.values() if now() - m.ended < RATE_SECONDS]
        speed = seconds = None
        if recent and self.live:
            begin = min(marker.ended - sum(marker.seconds.values()) for marker in recent)
            pixels = sum(box.area for marker in recent for box in marker.covered(self._grid))
            spent = max(now() - max(begin, now() - RATE_SECONDS), 1e-3)
            speed = pixels / spent / 1e6
            seconds = (total - done - failed) * spent / len(recent)
        return RunProgress(total, done, failed, speed, seconds)

    def _planned(self) -> Sequence[BlockIndex]:
        return [*self._grid] if self._parameters is None else self._parameters.blocks()

    def _is_whole(self, marker: BlockMarker) -> bool:
        return self._parameters is None or self._parameters.covers_block(marker)

    def _list(self, kind: str) -> list[BlockIndex]:
        """Return the blocks that have a file of a kind."""
        return [*_parse_names(self._store.list(f"{BOOKKEEPING}/{self.name}/{kind}"))]


def _parse_names(keys: Iterator[str]) -> Iterator[BlockIndex]:
    for key in keys:
        match = _BLOCK_FILE.fullmatch(key.rpartition("/")[2])
        if match is not None:
            yield int(match[1]), int(match[2])


def open_runs(store: ByteStore, groups: Sequence[ViewedGroup]) -> list[ViewedRun]:
    """Open the runs that made label groups, in the order of the groups.

    Raises:
        OutputError: what is known of one is damaged.
    """
    by_run: dict[str, list[ViewedGroup]] = {}
    for group in groups:
        by_run.setdefault(group.run, []).append(group)
    return [ViewedRun(store, name, members) for name, members in by_run.items()]

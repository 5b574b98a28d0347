"""What happens to blocks in flight."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_unet.labels.progress import BlockMarker
from wsi_unet.segmentation.worker.task import Task


@dataclass(frozen=True)
class Done:
    """A block that is stored and marked."""

    task: Task
    marker: BlockMarker


@dataclass(frozen=True)
class Failed:
    """A block that failed at its last attempt."""

    task: Task
    error: str


@dataclass(frozen=True)
class Waiting:
    """Nothing happened for a while; lets the caller draw its progress or stop."""


Event = Done | Failed | Waiting

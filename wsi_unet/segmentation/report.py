"""The reports of a run, while it is under way and when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from wsi_unet.labels.progress import BlockMarker
from wsi_unet.objects.report import LabelObjects

RunState = Literal["finished", "incomplete", "interrupted"]


@dataclass(frozen=True)
class ClassArea:
    """How much of the slide a class covers.

    Attributes:
        value: the class's label value.
        name: the class's name.
        color: the class's colour, "#rrggbb".
        pixels: level-0 pixels of the label array.
        area_mm2: the area in mm²; None where the slide's pixel size is unknown.
        fraction: share of the predicted pixels (tissue inside the regions), 0 to 1.
        group: the label group that the class is in.
    """

    value: int
    name: str
    color: str
    pixels: int
    area_mm2: float | None
    fraction: float
    group: str


@dataclass(frozen=True)
class BlockCounts:
    """How many blocks there are, and what became of them.

    Attributes:
        total: blocks of the run.
        done: blocks with a valid marker, those of earlier runs included.
        resumed: done by earlier runs.
        failed: failed at their last attempt.
        empty: done and all background, so that nothing is stored.
    """

    total: int
    done: int
    resumed: int
    failed: int
    empty: int

    @property
    def left(self) -> int:
        """Blocks neither done nor failed."""
        return self.total - self.done - self.failed


@dataclass(frozen=True)
class Failure:
    """A block that failed, and why."""

    block: tuple[int, int]
    error: str


@dataclass(frozen=True)
class Waits:
    """What the workers' threads spent their time on, in seconds summed over blocks.

    Attributes:
        read: reading and resampling the slide.
        device: waiting for the device while another block used it.
        predict: using the device.
        write: reducing, encoding and writing.
    """

    read: float = 0.0
    device: float = 0.0
    predict: float = 0.0
    write: float = 0.0

    @classmethod
    def from_marker(cls, marker: BlockMarker) -> Waits:
        """Return what one block spent its time on."""
        read, device, predict, write = (
            marker.seconds.get(name, 0.0) for name in ("read", "wait", "predict", "write")
        )
        return cls(read, device, predict, write)

    def __add__(self, other: Waits) -> Waits:
        return Waits(
            self.read + other.read,
            self.device + other.device,
            self.predict + other.predict,
            self.write + other.write,
        )


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        output: path or URL of the output store.
        label: name of the run, and of its label group where there is only one.
        slide: the slide's file name.
        state: "finished", "incomplete" (blocks failed) or "interrupted".
        blocks: label blocks.
        classes: areas by class, of the done blocks only; with the background, unless a pixel may
            belong to several classes.
        seconds: from the first task to the end, finishing included.
        startup_seconds: time before that: opening, planning, measuring.
        mpx_per_s: level-0 label pixels of this run's blocks per second, in millions.
        blocks_per_s: this run's label blocks per second.
        waits: what this run's blocks spent their time on.
        device_busy: share of the time that the devices were in use, 0 to 1.
        failures: every failed block, the image's too.
        image: blocks of the slide's image; None where none is stored.
        warnings: the plan's warnings, one line each.
        parameters: the run's parameters, with every choice made.
        objects: the objects of each label group; empty if they weren't asked for or looked for.
    """

    output: str
    label: str
    slide: str
    state: RunState
    blocks: BlockCounts
    classes: tuple[ClassArea, ...]
    seconds: float
    startup_seconds: float
    mpx_per_s: float
    blocks_per_s: float
    waits: Waits
    device_busy: float
    failures: tuple[Failure, ...]
    image: BlockCounts | None
    warnings: tuple[str, ...]
    parameters: dict[str, Any] = field(repr=False)
    objects: tuple[LabelObjects, ...] = ()

    @property
    def exactness(self) -> str:
        """Whether tiling can change a label: "exact" or "approximate"."""
        return str(self.parameters["exactness"])

    @property
    def inexact_because(self) -> str:
        """Why tiling can change a label; empty where it can't."""
        return str(self.parameters["inexact_because"])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        exactness = {"exactness": self.exactness, "inexact_because": self.inexact_because}
        return asdict(self) | exactness


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run.

    Attributes:
        phase: "opening", "choosing a tile", "comparing with float32", "segmenting", "finishing",
            "finding objects", "painting objects".
        blocks_done: done blocks, those of earlier runs included.
        blocks_total: blocks of the run.
        blocks_failed: failed blocks.
        pixels_done: level-0 label pixels of the blocks this run has done.
        seconds: time since the first task.
        mpx_per_s: millions of these pixels per second.
        seconds_left: estimated time left; None while there is no estimate.
        device_busy: share of the time that the devices were in use, 0 to 1.
        slide: the slide's file name; while it is being opened, as the caller wrote it.
        output: path or URL of the output store; "" while the slide is being opened.
        warnings: the plan's warnings, one line each.
    """

    phase: str
    blocks_done: int = 0
    blocks_total: int = 0
    blocks_failed: int = 0
    pixels_done: int = 0
    seconds: float = 0.0
    mpx_per_s: float = 0.0
    seconds_left: float | None = None
    device_busy: float = 0.0
    slide: str = ""
    output: str = ""
    warnings: tuple[str, ...] = ()


ProgressCallback = Callable[[RunProgress], None]


def ignore_progress(_: RunProgress) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class CohortProgress:
    """The progress of a cohort of slides.

    Attributes:
        slides_total: how many slides there are; None where that isn't known yet.
        slides_done: slides that have ended, finished or not.
        slides_failed: slides that have ended without being finished.
        blocks_done: label and image blocks done since the start.
        blocks_in_flight: blocks that are with the workers.
        pixels_done: level-0 label pixels done since the start.
        seconds: time since the start.
        mpx_per_s: millions of these pixels per second.
        blocks_per_s: blocks per second.
        device_busy: share of the time that the devices were in use, 0 to 1.
        active: the slides that are being opened, segmented or finished.
    """

    slides_total: int | None
    slides_done: int
    slides_failed: int
    blocks_done: int
    blocks_in_flight: int
    pixels_done: int
    seconds: float
    mpx_per_s: float
    blocks_per_s: float
    device_busy: float
    active: tuple[RunProgress, ...]

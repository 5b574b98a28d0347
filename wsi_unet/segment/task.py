"""What travels to a worker, and what the worker keeps open between tasks.

A task is coordinates: it names a run in an output store and one of its blocks. The worker reads
the run's parameters from the store and opens the slide, the model and the mask itself, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread
from typing import Literal

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.objects import open_objects
from wsi_unet.labels.progress import BlockMarker, Progress
from wsi_unet.models.checkpoint import Model, load_model
from wsi_unet.models.devices import resolve_device, usable_cores
from wsi_unet.models.predictor import Predictor
from wsi_unet.segment.block import LabelBlocks
from wsi_unet.segment.image_block import ImageBlocks
from wsi_unet.segment.marking import Blocks
from wsi_unet.segment.parameters import ImageParameters, LabelParameters, SlideReference
from wsi_unet.segment.resident import Resident
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.resample import open_raster
from wsi_unet.slides.slide import Slide

IMAGE = "image"
"""Name of the progress files of the slide's image; no label group may have it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One array of an output being filled, as a worker finds it.

    Attributes:
        output: the output store.
        name: the label group, or `IMAGE`.
        run_id: tells this run from earlier ones at the same place, whose parameters a worker may
            still hold.
    """

    output: str
    name: str
    run_id: str

    @property
    def kind(self) -> Literal["labels", "image"]:
        """What the run fills."""
        return "image" if self.name == IMAGE else "labels"


@dataclass(frozen=True, slots=True)
class Task:
    """One block of one run, tried for the `attempt`-th time."""

    run: Run
    index: BlockIndex
    attempt: int = 1

    @property
    def key(self) -> str:
        """Dask's name for the task: a constant prefix, then what makes it unique."""
        i, j = self.index
        return f"block-{self.run.run_id}-{self.run.name}-{i}.{j}-{self.attempt}"


CLOSING_SECONDS = 2.0

_BLOCKS: Resident[Blocks] = Resident(capacity=8)
_PREDICTORS: Resident[Predictor] = Resident(capacity=2)


def run_task(task: Task) -> BlockMarker:
    """Run one block in this process.

    Raises:
        BlockError: if the block fails.
        WsiUnetError: if the slide, the model or the run can't be opened.
    """
    blocks = _BLOCKS.get(task.run, lambda: _open(task.run))
    return blocks.run(task.index, task.attempt)


def release_run(run: Run) -> None:
    """Close what this process holds open for `run`; a block in work ends at its next tile.

    A read that hangs would hold up the closing, so that isn't waited for.
    """
    blocks = _BLOCKS.release(run)
    if blocks is not None:
        closing = Thread(target=blocks.close, daemon=True)
        closing.start()
        closing.join(timeout=CLOSING_SECONDS)


def resident_predictor(
    model: Model, *, device: str, precision: str, processes_per_host: int
) -> Predictor:
    """Return this process's predictor for `model`, loaded at the first call.

    Args:
        model: the model; its hash is the key.
        device: "cpu", "cuda" or "cuda:<index>".
        precision: "float32", "bfloat16" or "float16".
        processes_per_host: how many processes share the cores.
    """
    device = resolve_device(device)
    threads = max(1, usable_cores() // processes_per_host)
    return _PREDICTORS.get(
        (model.sha256, device, precision, threads),
        lambda: Predictor(model, device=device, precision=precision, threads=threads),
    )


def _open(run: Run) -> Blocks:
    objects = open_objects(run.output)
    progress = Progress(objects, run.name)
    record = progress.read_run()
    if record is None:
        raise OutputError(
            f"{run.output} holds no run {run.name!r}; can this worker see the same files as the "
            "client?"
        )
    if run.kind == "image":
        image = ImageParameters.model_validate(record.parameters)
        slide = open_reference(image.slide)
        return ImageBlocks(image, slide, open_raster(slide, image.sampling), objects, progress)
    labels = LabelParameters.model_validate(record.parameters)
    model = load_model(labels.model.path)
    if model.sha256 != labels.model.sha256:
        raise OutputError(f"{labels.model.path} is not the model this run was planned with")
    slide = open_reference(labels.slide)
    return LabelBlocks(
        parameters=labels,
        slide=slide,
        raster=open_raster(slide, labels.sampling),
        mask=None if labels.tissue == "none" else progress.read_mask(),
        predictor=resident_predictor(
            model,
            device=labels.device,
            precision=labels.precision,
            processes_per_host=labels.processes_per_host,
        ),
        objects=objects,
        progress=progress,
    )


def open_reference(reference: SlideReference) -> Slide:
    """Open the slide a run was planned with, and make sure that it is the same one.

    Raises:
        SlideError: if it can't be opened.
        OutputError: if it isn't the same slide.
    """
    slide = open_slide(reference.path, reader=reference.reader)
    if slide.fingerprint() != reference.fingerprint:
        slide.close()
        raise OutputError(f"{reference.path} is not the slide this run was planned with")
    return slide

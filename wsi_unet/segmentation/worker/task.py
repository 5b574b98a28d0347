"""The tasks that are sent to workers, and what a worker process keeps open between them.

A task consists of coordinates: it names a run in an output store and one of its blocks. The worker
reads the run's parameters from the store and opens the slide, the model and the mask itself, once.

Slides and models are expensive to open and can't be sent, so every process keeps its own between
tasks: `_BLOCKS` and `_PREDICTORS` are module state for that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wsi_unet.cores import usable_cores
from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.names import IMAGE_NAME
from wsi_unet.labels.progress import BlockMarker, Progress
from wsi_unet.models.inference.augmentation import Tta
from wsi_unet.models.inference.devices import resolve_device
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.models.inference.predictor import Predictor
from wsi_unet.models.model import load_model
from wsi_unet.predicted_area import is_mask_of
from wsi_unet.process_cache import ProcessCache
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters, parse_parameters
from wsi_unet.segmentation.references import ModelReference, SlideReference
from wsi_unet.segmentation.worker.image_block import ImageBlockRunner
from wsi_unet.segmentation.worker.label_block import LabelBlockRunner
from wsi_unet.segmentation.worker.run_once import BlockRunner
from wsi_unet.segmentation.worker.sessions import check_session, end_session
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.resample import open_raster
from wsi_unet.slides.slide import Slide
from wsi_unet.slides.tissue.mask import TissueMask
from wsi_unet.storage.opening import open_store


@dataclass(frozen=True, slots=True)
class Run:
    """One array of an output that is being filled, as a worker finds it.

    Attributes:
        output: path or URL of the output store.
        name: the label group, or `IMAGE_NAME`.
        signature: signature of the run's parameters; a worker that reads another one stops.
        session: distinguishes the executions of a run.
    """

    output: str
    name: str
    signature: str
    session: str

    @property
    def kind(self) -> Literal["labels", "image"]:
        """Whether the run fills labels or the image."""
        return "image" if self.name == IMAGE_NAME else "labels"


@dataclass(frozen=True, slots=True)
class Task:
    """One block of one run: the unit of work, and all that is sent to a worker for it.

    >>> run = Run("/results/a.ome.zarr", "nuclei", signature="5f3a", session="9c1d")
    >>> task = Task(run, index=(0, 3))
    >>> task.key
    'block-9c1d-nuclei-0.3-1'

    Tasks are immutable and hashable; another attempt is another task:

    >>> from dataclasses import replace
    >>> replace(task, attempt=2).key
    'block-9c1d-nuclei-0.3-2'

    Attributes:
        run: the run.
        index: the block, (row, column) in the grid of blocks.
        attempt: 1 for the first try.
        deadline: seconds after which the task counts as hung.
    """

    run: Run
    index: BlockIndex
    attempt: int = 1
    deadline: float = 900.0

    @property
    def key(self) -> str:
        """Dask's key of the task: a constant prefix, then what makes the key unique."""
        i, j = self.index
        return f"block-{self.run.session}-{self.run.name}-{i}.{j}-{self.attempt}"


_BLOCKS = ProcessCache[BlockRunner](capacity=8, close=lambda runner: runner.close())
_PREDICTORS = ProcessCache[Predictor](capacity=2)


def run_task(task: Task) -> BlockMarker:
    """Run one block in this process.

    Raises:
        BlockError: the block fails, or its session is over.
        WsiUnetError: the slide, the model or the run can't be opened.
    """
    check_session(task.run.session)
    with _BLOCKS.use(task.run, lambda: _open_run(task.run)) as runner:
        return runner.run(task.index, task.attempt)


def release_run(run: Run) -> None:
    """Close what this process holds open for `run`.

    A block that is being computed ends at its next tile. A read that hangs would hold up closing,
    so that is waited for only briefly.
    """
    end_session(run.session, _BLOCKS, run)


def get_predictor(
    sha256: str,
    load: Callable[[], Ensemble],
    *,
    tta: Tta,
    device: str,
    precision: str,
    processes_per_core: int,
) -> Predictor:
    """Return this process's predictor for a model, which is loaded at the first call.

    Args:
        sha256: hash of the model or the ensemble.
        load: loads the model, if the process doesn't have it yet.
        tta: which views of a window are averaged.
        device: "cpu", "cuda" or "cuda:<index>".
        precision: "float32", "bfloat16" or "float16".
        processes_per_core: how many processes share a core.
    """
    device = resolve_device(device)
    threads = max(1, usable_cores() // processes_per_core)
    return _PREDICTORS.get(
        (sha256, tta, device, precision, threads),
        lambda: Predictor(load(), device=device, precision=precision, threads=threads),
    )


def _open_run(run: Run) -> BlockRunner:
    store = open_store(run.output)
    record = Progress(store, run.name).read_run()
    if record is None:
        raise OutputError(
            f"{run.output} contains no run {run.name!r}; check that this worker sees the same "
            "files as the client"
        )
    if record.signature != run.signature:
        raise OutputError(f"{run.output}: another run of {run.name!r} has replaced this one")
    changed = f"{run.output}: the parameters of {run.name!r} were changed; start again"
    if run.kind == "image":
        image = parse_parameters(record, ImageParameters)
        if image.signature() != run.signature:
            raise OutputError(changed)
        progress = Progress(store, run.name, image.layout)
        slide = open_reference(image.slide)
        return ImageBlockRunner(image, slide, open_raster(slide, image.resampling), store, progress)
    labels = parse_parameters(record, LabelParameters)
    if labels.signature() != run.signature:  # above all the model, which may be trusted code
        raise OutputError(changed)
    progress = Progress(store, run.name, labels.layout)
    mask = _read_mask(progress, labels)
    predictor = get_predictor(
        labels.model.sha256,
        lambda: load_ensemble(labels.model, labels.tta),
        tta=labels.tta,
        device=labels.device,
        precision=labels.precision,
        processes_per_core=labels.processes_per_core,
    )
    slide = open_reference(labels.slide)  # last, so that failures before leave nothing open
    return LabelBlockRunner(
        record=record,
        parameters=labels,
        slide=slide,
        raster=open_raster(slide, labels.resampling),
        area=labels.predicted_area(mask),
        predictor=predictor,
        store=store,
        progress=progress,
    )


def load_ensemble(reference: ModelReference, tta: Tta) -> Ensemble:
    """Load the models that a run was planned with.

    Raises:
        ModelError: a model can't be loaded.
        OutputError: a model has changed.
    """
    models = []
    for member in reference.each:
        model = load_model(member.path, trust=member.trust)
        if model.sha256 != member.sha256:
            raise OutputError(
                f"{member.path} has changed since this run was planned; if it is still being "
                "trained, segment with a copy of it"
            )
        models.append(model)
    return Ensemble(tuple(models), tta)


def _read_mask(progress: Progress, labels: LabelParameters) -> TissueMask | None:
    """Return the run's tissue mask; None for a run without one.

    Raises:
        OutputError: it isn't the mask that the run was planned with.
    """
    if labels.tissue == "none":
        return None
    mask = progress.read_mask()
    if mask is None or not is_mask_of(mask, labels.tissue):
        raise OutputError(
            f"{progress.store}: the tissue mask of {progress.name!r} is missing or belongs to "
            "another run; run the same command again"
        )
    return mask


def open_reference(reference: SlideReference) -> Slide:
    """Open the slide that a run was planned with.

    Raises:
        SlideError: the slide can't be opened.
        OutputError: the slide has changed.
    """
    slide = open_slide(reference.path, reader=reference.reader, series=reference.series)
    if slide.fingerprint() != reference.fingerprint:
        slide.close()
        raise OutputError(f"{reference.path} is not the slide that this run was planned with")
    return slide

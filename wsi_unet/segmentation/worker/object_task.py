"""The tasks that find objects, and what a worker process keeps open between them.

Like tasks of labels they consist of coordinates: a worker reads the rule and opens the labels
itself, once. The faces of blocks come back to the client, which joins them; parts are written here.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsi_unet.errors import BlockError, OutputError, describe_error
from wsi_unet.geometry import BlockIndex
from wsi_unet.objects.faces import Faces
from wsi_unet.objects.joining import Component
from wsi_unet.objects.records import StageFiles
from wsi_unet.objects.rule import ObjectRule
from wsi_unet.objects.source import LabelSource
from wsi_unet.objects.stage import MadePart, Stage
from wsi_unet.process_cache import ProcessCache
from wsi_unet.segmentation.worker.sessions import check_session, end_session
from wsi_unet.storage.opening import open_store


@dataclass(frozen=True, slots=True)
class ObjectRun:
    """The objects of one label group that are being found, as a worker finds them.

    Attributes:
        output: path or URL of the output store.
        name: the label group.
        labels: the run that made the labels.
        signature: signature of the stage; a worker that reads another one stops.
        session: distinguishes the executions of a stage.
    """

    output: str
    name: str
    labels: str
    signature: str
    session: str


@dataclass(frozen=True, slots=True)
class ObjectTask:
    """One of the two tasks of a block.

    Attributes:
        run: the stage.
        index: the block, (row, column).
        attempt: 1 for the first try.
        deadline: seconds after which the task counts as hung.
    """

    run: ObjectRun
    index: BlockIndex
    attempt: int = 1
    deadline: float = 900.0

    @property
    def key(self) -> str:
        """Dask's key of the task: a constant prefix, then what makes the key unique."""
        i, j = self.index
        kind = "part" if isinstance(self, PartTask) else "faces"
        return f"{kind}-{self.run.session}-{self.run.name}-{i}.{j}-{self.attempt}"


@dataclass(frozen=True, slots=True)
class FacesTask(ObjectTask):
    """Finding the components of a block that touch faces which it shares."""


@dataclass(frozen=True, slots=True)
class PartTask(ObjectTask):
    """Finding and measuring the objects that begin in a block.

    Attributes:
        owned: the components that begin in it and touch faces that it shares.
    """

    owned: tuple[Component, ...] = ()


_STAGES = ProcessCache[Stage](capacity=8, close=lambda stage: stage.close())


def share_stage(run: ObjectRun, stage: Stage) -> None:
    """Give this process's workers a stage that is open already."""
    _STAGES.get(run, lambda: stage)


def release_objects(run: ObjectRun) -> None:
    """Close what this process holds open for `run`; tasks of it that are queued won't start."""
    end_session(run.session, _STAGES, run)


def run_object_task(task: ObjectTask) -> Faces | MadePart:
    """Run one task in this process.

    Raises:
        BlockError: it fails, or its session is over.
    """
    check_session(task.run.session)
    i, j = task.index
    try:
        with _STAGES.use(task.run, lambda: _open_stage(task.run)) as stage:
            if isinstance(task, PartTask):
                return stage.make_part(task.index, task.owned)
            return stage.find_faces(task.index)
    # A store or a codec may raise anything; whatever it is, it belongs to this block.
    except Exception as error:
        what = f"objects of {task.run.name}, block {i}.{j}"
        raise BlockError(f"{what}: {describe_error(error)}") from error


def _open_stage(run: ObjectRun) -> Stage:
    store = open_store(run.output)
    record = StageFiles(store, run.labels, run.name).read_stage()
    if record is None:
        raise OutputError(
            f"{run.output}: no objects of {run.name!r} are being found; check that this worker "
            "sees the same files as the client"
        )
    (source,) = LabelSource.open_all(store, [run.name])
    stage = Stage.plan(source, ObjectRule(record.rules), record.measure)
    if {record.signature, stage.signature} != {run.signature}:
        stage.close()
        raise OutputError(f"{run.output}: the rule or the labels of {run.name!r} have changed")
    return stage

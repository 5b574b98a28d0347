"""Every kind of task, as the dispatch sends them: of labels and images, and of objects."""

from __future__ import annotations

from wsi_unet.labels.progress import BlockMarker
from wsi_unet.objects.faces import Faces
from wsi_unet.objects.stage import MadePart
from wsi_unet.segmentation.worker.object_task import (
    ObjectRun,
    ObjectTask,
    run_object_task,
)
from wsi_unet.segmentation.worker.task import Run, Task, run_task

AnyRun = Run | ObjectRun
AnyTask = Task | ObjectTask
Result = BlockMarker | Faces | MadePart


def run_any_task(task: AnyTask) -> Result:
    """Run one task in this process.

    Raises:
        BlockError: it fails, or its session is over.
        WsiUnetError: what it needs can't be opened.
    """
    return run_task(task) if isinstance(task, Task) else run_object_task(task)

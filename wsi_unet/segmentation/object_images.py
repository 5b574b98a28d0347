"""Painting the label images of objects that were found."""

from __future__ import annotations

import time
from collections.abc import Iterable

from wsi_unet.objects.painting.label_image import write_object_image
from wsi_unet.objects.painting.stored import StoredObjects
from wsi_unet.objects.source import LabelSource
from wsi_unet.segmentation.report import ProgressCallback, RunProgress
from wsi_unet.segmentation.runs.meter import PROGRESS_SECONDS
from wsi_unet.storage.locking.lock import OutputLock

PAINTING = "painting objects"


def paint_object_images(
    sources: Iterable[LabelSource], lock: OutputLock, on_progress: ProgressCallback
) -> list[str]:
    """Paint the label images of objects, which are all there; return the images' names.

    Args:
        sources: the labels.
        lock: on the output.
        on_progress: called several times per second; what it raises ends the painting, and what is
            painted stays.

    Raises:
        OutputError: a part of a table isn't what was written, an image's name is taken, something
            can't be written, or another process has taken over.
    """
    return [_paint(source, lock, on_progress) for source in sources]


def _paint(source: LabelSource, lock: OutputLock, on_progress: ProgressCallback) -> str:
    output, started, told = str(source.store), time.perf_counter(), 0.0

    def tell(done: int, blocks: int) -> None:
        nonlocal told
        lock.check()
        if time.monotonic() - told >= PROGRESS_SECONDS:
            on_progress(
                RunProgress(
                    phase=PAINTING,
                    slide=source.provenance.slide.name,
                    output=output,
                    blocks_done=done,
                    blocks_total=blocks,
                    seconds=time.perf_counter() - started,
                )
            )
            told = time.monotonic()

    return write_object_image(StoredObjects.open(source.store, source.label), tell)

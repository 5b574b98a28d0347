"""The verb `find_objects`: from finished labels to the table of their objects."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from distributed import Client

from wsi_unet import logs
from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.file_visibility import check_paths
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.labels.contents import choose_name, open_output, read_label_names
from wsi_unet.locations import Location
from wsi_unet.objects.options import NumberPerClass, TextPerClass, parse_measure, resolve_rules
from wsi_unet.objects.report import ObjectsReport
from wsi_unet.objects.rule import ObjectRule
from wsi_unet.objects.source import LabelSource
from wsi_unet.segmentation.dispatch.in_flight import BlockDone, BlockFailed
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.dispatch.stream import stream
from wsi_unet.segmentation.object_images import paint_object_images
from wsi_unet.segmentation.report import ProgressCallback, ignore_progress
from wsi_unet.segmentation.runs.meter import PROGRESS_SECONDS
from wsi_unet.segmentation.runs.object_finding import ObjectFinding
from wsi_unet.segmentation.worker.any_task import AnyTask
from wsi_unet.storage.locking.lock import LockOwner, acquire

LIMITS = Limits()
"""How patient finding objects is; the retries are the cluster options'."""


def find_objects(
    output: str | os.PathLike[str] | Location,
    *,
    label: str | None = None,
    split: TextPerClass = None,
    min_area: NumberPerClass = None,
    max_area: NumberPerClass = None,
    measure: str | Iterable[str] | None = None,
    object_labels: bool = False,
    cluster: ClusterOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> ObjectsReport:
    """Find, measure and store the objects of finished labels; each once, the same for any blocks.

    >>> report = wsi_unet.find_objects("slide.ome.zarr")          # doctest: +SKIP
    >>> wsi_unet.open_objects("slide.ome.zarr").to_table()        # doctest: +SKIP

    A table that is there already is completed: only what is missing, damaged or was made from other
    labels or by another rule is computed.

    Args:
        output: a finished result: a folder or an s3:// URL.
        label: name of the label group; None takes all of them.
        split: "none", "distance:H" with a height in µm (px of the slide where its pixel size isn't
            known), or "interior:BOUNDARY:GROWTH" with a class and how far objects grow into it in
            µm (px); for every class, or by the class's name; None: as the model's card says.
        min_area: objects with a smaller area are dropped, µm² (px²); likewise.
        max_area: objects with a larger area are dropped, µm² (px²); likewise.
        measure: "shape", which always is and None means, and "intensity" or "stain" or both, which
            are measured on the slide: "shape,intensity,stain".
        object_labels: paint a label image of the objects too, for viewers: `labels/<name>.objects`,
            numbers 1 … n in order of identity.
        cluster: where to compute; None is this process.
        on_progress: called several times per second. KeyboardInterrupt raised in it, or by Ctrl-C,
            ends it early; what is done is kept.

    Returns:
        What was found; `state` is "incomplete" if blocks failed.

    Raises:
        OptionError: a rule can't be, or names a class that isn't there; or what is to be measured
            can't be.
        OutputError: there is no result, its labels aren't finished or are damaged, their slide
            isn't the same any more, or the table can't be written.
        SlideError: the slide is needed and can't be opened.
        LockedError: a run is writing to the output.
        ClusterError: there is no cluster, or it went away; what is done is kept.
    """
    started = time.monotonic()
    measured = parse_measure(measure)
    store = open_output(output)
    names = read_label_names(store)
    if label is not None or not names:
        names = [choose_name(output, "labels", names, label)]
    options = cluster or ClusterOptions()
    with acquire(store, owner=LockOwner.current("find objects")) as lock:
        sources = LabelSource.open_all(store, names)
        rule = _resolve(sources, split, min_area, max_area)
        store.remove_leftovers()
        with open_client(options) as client:
            slides = _find_slides(sources) if measured else []
            check_paths(client, readable=[str(store), *slides], writable=[str(store)])
            limits = replace(LIMITS, retries=options.max_retries)
            finding = ObjectFinding(client, sources, rule, lock, limits, measured)
            interrupted = not _carry_out(client, finding, limits, on_progress)
        images: list[str] = []
        if object_labels and not interrupted:
            found = {each.label for each in finding.objects if each.finished}
            try:
                painted = (each for each in sources if each.label in found)
                images = paint_object_images(painted, lock, on_progress)
            except KeyboardInterrupt:
                interrupted = True
    labels, seconds = finding.objects, time.monotonic() - started
    total = sum(each.objects for each in labels)
    logs.event("found objects", output=str(output), objects=total, seconds=round(seconds, 3))
    return ObjectsReport(str(output), labels, seconds, interrupted, tuple(images))


def _resolve(
    sources: Sequence[LabelSource],
    split: TextPerClass,
    min_area: NumberPerClass,
    max_area: NumberPerClass,
) -> ObjectRule:
    """Return the rule of every class: the card's, changed as the caller says."""
    groups = [each.classes.values() for each in sources]
    cards = [each.provenance.rule for each in sources]
    return resolve_rules(groups, cards, split, min_area, max_area)


def _find_slides(sources: Sequence[LabelSource]) -> list[str]:
    """Return where the slides of labels are, as far as this machine has them."""
    references = (each.slide.reference for each in sources)
    paths = dict.fromkeys(each.path for each in references if each is not None)
    return [path for path in paths if Path(path).exists()]


def _carry_out(
    client: Client, finding: ObjectFinding, limits: Limits, on_progress: ProgressCallback
) -> bool:
    """Do all tasks; return whether nobody interrupted.

    Raises:
        ClusterError: the cluster went away; what is done is recorded.
    """

    def list_tasks() -> Iterator[AnyTask | None]:
        while (task := finding.next_task()) is not None or finding.waits:
            yield task

    finding.start()
    told = 0.0
    try:
        for event in stream(client, list_tasks(), limits=limits):
            if isinstance(event, BlockDone | BlockFailed):
                finding.record(event)
            if time.monotonic() - told >= PROGRESS_SECONDS:
                on_progress(finding.measure_progress())
                told = time.monotonic()
    except KeyboardInterrupt:
        finding.stop()
        return False
    finally:
        finding.complete()
    return True

"""The output of a run: laid out before the first block, completed after the last."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from pydantic import JsonValue

from wsi_unet.labels import contents, layout
from wsi_unet.labels.contents import FORMAT_VERSION, parse_frame
from wsi_unet.labels.documents import DamagedError, read_group_attributes
from wsi_unet.labels.metadata import Frame, describe_classes
from wsi_unet.labels.names import IMAGE_NAME
from wsi_unet.labels.progress import Progress, RunRecord, ShardRecord
from wsi_unet.labels.pyramid import reduce_mean, reduce_mode
from wsi_unet.labels.run_layout import RunLayout
from wsi_unet.labels.writer import build_tail
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters
from wsi_unet.segmentation.planning.output_state import WHOLE_STORE, OutputState, describe_slide
from wsi_unet.segmentation.report import ClassArea
from wsi_unet.segmentation.worker.task import Run
from wsi_unet.slides.tissue.mask import TissueMask, mask_digest
from wsi_unet.storage.opening import open_store
from wsi_unet.storage.store import ByteStore

if TYPE_CHECKING:
    from wsi_unet.models.inference.ensemble import Ensemble
    from wsi_unet.segmentation.planning.plan import Plan

VERSIONS = ("wsi-unet", "torch", "zarr", "tiffslide", "dask", "numpy")


@dataclass(frozen=True)
class OpenOutput:
    """An output that is laid out: the store, and the runs that fill it.

    Attributes:
        store: the store.
        labels: the run that fills the label groups.
        image: the run that fills the slide's image; None where none is stored.
        layouts: what the markers of each run can say.
    """

    store: ByteStore
    labels: Run
    image: Run | None
    layouts: Mapping[Run, RunLayout]

    def open_progress(self, run: Run) -> Progress:
        """Return the progress files of a run."""
        return Progress(self.store, run.name, self.layouts[run])


def lay_out(plan: Plan, before: OutputState, ensemble: Ensemble) -> OpenOutput:
    """Write everything that isn't pixels, so that blocks can be written in any order.

    What is there already is kept, so a run that is killed in here resumes. The record of
    the labels' run is written last: without it they don't count as started.

    Args:
        plan: what is to be done.
        before: what is there, inspected under the lock.
        ensemble: the models, for classes and provenance.

    Raises:
        OutputError: something can't be written.
    """
    store = open_store(plan.output)
    if before.replaces == WHOLE_STORE:
        layout.remove_all(store)
    elif before.replaces is not None:
        layout.remove_run(store, before.replaces)
    store.remove_leftovers()
    layout.ensure_root(store, {"slide": describe_slide(plan.labels.slide)})
    created = datetime.now(UTC).isoformat(timespec="seconds")
    if plan.image is not None:
        # Recorded first: what is described without a record would count as stored already.
        _record_run(store, IMAGE_NAME, plan.image, created)
        if not contents.is_described(store, "", plan.image.pyramid, channels=3):
            frame = Frame.from_downsample(plan.image.resampling.downsample, plan.image.slide.mpp)
            layout.create_image(store, plan.image.slide.name, plan.image.pyramid, frame)
    if before.stored is None or not (
        are_labels_described(store, plan.labels) and _have_classes(store, plan.labels, ensemble)
    ):
        _create_labels(store, plan, ensemble, created)
    if plan.mask is not None and not _same_mask(plan.mask, before.mask):
        Progress(store, plan.labels.label).write_mask(plan.mask)
    _record_run(store, plan.labels.label, plan.labels, created)
    session = uuid.uuid4().hex[:12]
    labels = Run(plan.output, plan.labels.label, plan.labels.signature(), session)
    layouts = {labels: plan.labels.layout}
    image = None
    if plan.image is not None:
        image = Run(plan.output, IMAGE_NAME, plan.image.signature(), session)
        layouts[image] = plan.image.layout
    return OpenOutput(store, labels, image, layouts)


def _create_labels(store: ByteStore, plan: Plan, ensemble: Ensemble, created: str) -> None:
    labels = plan.labels
    frame = Frame.from_downsample(labels.resampling.downsample, labels.slide.mpp)
    provenance = _describe_provenance(plan, ensemble, created)
    for name, group in zip(labels.label_groups, ensemble.groups, strict=True):
        layout.create_labels(store, name, labels.pyramid, frame, group.classes, provenance)
    if labels.probabilities:
        spec = ensemble.spec
        values = {label.value: label for label in spec.labels}
        channels = [values[value] for value in spec.label_values]
        layout.create_probabilities(
            store, labels.label, labels.pyramid, frame, channels, provenance
        )


def _have_classes(store: ByteStore, labels: LabelParameters, ensemble: Ensemble) -> bool:
    """Return whether the label groups name the models' classes, in the models' frame."""
    frame = Frame.from_downsample(labels.resampling.downsample, labels.slide.mpp)
    for name, group in zip(labels.label_groups, ensemble.groups, strict=True):
        attributes = read_group_attributes(store, f"labels/{name}", "labels") or {}
        if attributes.get("wsi_unet", {}).get("run") != labels.label:
            return False
        expected = describe_classes(group.classes, has_image=False)
        found = attributes["ome"]["image-label"]
        meanings = [
            {key: item[key] for key in ("label-value", "class")} for item in found["properties"]
        ]
        if (meanings, found["colors"]) != (expected["properties"], expected["colors"]):
            return False
        if parse_frame(attributes) != frame:
            return False
    return True


def _same_mask(mask: TissueMask, stored: TissueMask | None) -> bool:
    return stored is not None and mask_digest(mask) == mask_digest(stored)


def are_labels_described(store: ByteStore, labels: LabelParameters) -> bool:
    """Return whether the metadata of label groups and their probabilities is there and sound."""
    groups: list[tuple[str, int | None]] = [
        (f"labels/{name}", None) for name in labels.label_groups
    ]
    if labels.probabilities:
        group = f"probability/{labels.label}"
        groups.append((group, labels.classes or _count_channels(store, group)))
    return {*labels.label_groups} <= {*contents.read_label_names(store)} and all(
        contents.is_described(store, group, labels.pyramid, channels) for group, channels in groups
    )


def _count_channels(store: ByteStore, group: str) -> int:
    """Return the number of channels that a group of probabilities describes; 0 if it doesn't."""
    try:
        attributes = read_group_attributes(store, group, "channels")
    except DamagedError:
        return 0
    return 0 if attributes is None else len(attributes["ome"]["omero"]["channels"])


def _record_run(
    store: ByteStore,
    name: str,
    parameters: LabelParameters | ImageParameters,
    created: str,
) -> None:
    """Store a run's parameters, unless they are stored already."""
    progress = Progress(store, name)
    before = progress.read_run()
    record = RunRecord(
        name=name,
        signature=parameters.signature(),
        parameters=parameters.model_dump(mode="json"),
        created=created if before is None else before.created,
    )
    if record != before:
        progress.write_run(record)


def reopen(output: OpenOutput, run: Run) -> None:
    """Undo the completion of a run, because some of its blocks are computed again."""
    progress = output.open_progress(run)
    if progress.read_tail(run.signature) is not None:
        progress.forget_tail()
    if run.kind == "labels":
        mark_unfinished(output.store, run.name)


def mark_unfinished(store: ByteStore, label: str) -> None:
    """Mark the label groups of a run as unfinished."""
    for group in contents.read_run_groups(store, label):
        if _is_finished(store, group):
            layout.mark_unfinished(store, group)


def complete_labels(output: OpenOutput, labels: LabelParameters, classes: int) -> None:
    """Build the small levels and record the areas; every block must be marked done.

    Args:
        output: the output.
        labels: the parameters of the label groups.
        classes: number of the network's outputs.
    """
    store, pyramid = output.store, labels.pyramid
    progress = output.open_progress(output.labels)
    shards: dict[str, ShardRecord] = {}
    for name in labels.label_groups:
        shards |= build_tail(store, f"labels/{name}", pyramid, reduce_mode)
    if labels.probabilities:
        group = f"probability/{labels.label}"
        shards |= build_tail(store, group, pyramid, reduce_mean, channels=classes)
    progress.write_tail(shards, output.labels.signature)
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    pixels = count_label_pixels(progress, labels)
    for name, counts in zip(labels.label_groups, pixels, strict=True):
        layout.mark_finished(store, name, counts, finished)


def complete_image(output: OpenOutput, image: ImageParameters) -> None:
    """Build the image's small levels; every block must be marked done."""
    shards = build_tail(output.store, "", image.pyramid, reduce_mean, channels=3)
    Progress(output.store, IMAGE_NAME).write_tail(shards, image.signature())


def is_complete(output: OpenOutput, run: Run) -> bool:
    """Return whether a run that has all its blocks has its small levels too."""
    progress = output.open_progress(run)
    tail = progress.read_tail(run.signature)
    if tail is None or not progress.shards_exist(tail):
        return False
    return run.kind == "image" or is_finished(output.store, run.name)


def is_finished(store: ByteStore, label: str) -> bool:
    """Return whether the label groups of a run are marked as finished."""
    groups = contents.read_run_groups(store, label)
    return bool(groups) and all(_is_finished(store, group) for group in groups)


def _is_finished(store: ByteStore, group: str) -> bool:
    try:
        attributes = read_group_attributes(store, f"labels/{group}", "labels")
    except DamagedError:
        return False
    return attributes is not None and attributes["wsi_unet"]["finished"] is not None


def count_label_pixels(progress: Progress, labels: LabelParameters) -> list[list[int]]:
    """Count the predicted level-0 pixels of each label group by value, over all done blocks.

    Background counts where the model predicted only: what it didn't look at isn't background. A
    block of which only a part is done yet, because the regions have grown, counts with that part.
    The lists are empty where no block is done.
    """
    wanted = set(labels.blocks())
    sums: list[int] = []
    predicted = 0
    for marker in progress.read_markers(labels.signature()):
        if marker.block not in wanted:
            continue
        sums = sums or [0] * len(marker.counts)
        sums = [total + count for total, count in zip(sums, marker.counts, strict=True)]
        predicted += marker.predicted
    values = len(sums) // len(labels.label_groups)  # every group has as many
    groups = [sums[i * values : (i + 1) * values] for i in range(len(labels.label_groups))]
    for group in groups:
        group[:1] = [predicted - sum(group[1:])] if group else []
    return groups


def measure_areas(
    output: OpenOutput, labels: LabelParameters, ensemble: Ensemble
) -> tuple[ClassArea, ...]:
    """Return the area of every class over the blocks that are done."""
    frame = Frame.from_downsample(labels.resampling.downsample, labels.slide.mpp)
    counts = count_label_pixels(output.open_progress(output.labels), labels)
    overlapping = ensemble.spec.multi_label  # a group's background only says "not this class"
    areas = []
    for name, group, pixels in zip(labels.label_groups, ensemble.groups, counts, strict=True):
        predicted = sum(pixels)
        for label in group.classes[1 if overlapping else 0 :]:
            count = pixels[label.value] if pixels else 0
            area = ClassArea(
                value=label.value,
                name=label.name,
                color=label.color,
                pixels=count,
                area_mm2=frame.area_mm2(count),
                fraction=count / predicted if predicted else 0.0,
                group=name,
            )
            areas.append(area)
    return tuple(areas)


def _describe_provenance(plan: Plan, ensemble: Ensemble, created: str) -> dict[str, JsonValue]:
    """Return what a label group says about how it was made."""
    labels = plan.labels
    models: list[JsonValue] = [
        {
            "name": model.spec.name,
            "sha256": model.sha256,
            "spec": model.spec.model_dump(mode="json"),
        }
        for model in ensemble.models
    ]
    return {
        "format_version": FORMAT_VERSION,
        "created": created,
        "signature": plan.signature,
        "run": labels.label,
        "slide": describe_slide(labels.slide),
        "model": models[0]
        if len(models) == 1
        else {
            "name": ensemble.name,
            "sha256": ensemble.sha256,
            "mean_of": models,
        },
        "parameters": labels.model_dump(
            mode="json", exclude={"slide", "model", "regions", "processes_per_core"}
        ),
        "exactness": labels.exactness,
        "inexact_because": labels.inexact_because,
        "agreement": labels.agreement,
        "versions": {name: version(name) for name in VERSIONS},
    }

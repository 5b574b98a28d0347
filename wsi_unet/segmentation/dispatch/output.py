"""The output of a run: laid out before the first block, completed after the last."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from wsi_unet.labels import layout
from wsi_unet.labels.contents import FORMAT_VERSION, IMAGE_NAME
from wsi_unet.labels.progress import Progress, RunRecord, ShardRecord
from wsi_unet.labels.pyramid import reduce_mean, reduce_mode
from wsi_unet.labels.writer import build_tail
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters
from wsi_unet.segmentation.planning.existing_output import WHOLE_STORE, Target, slide_record
from wsi_unet.segmentation.worker.task import Run
from wsi_unet.slides.tissue.tissue import Mask, mask_digest
from wsi_unet.storage.store import ByteStore, open_store

if TYPE_CHECKING:
    from wsi_unet.models.inference.ensemble import Ensemble
    from wsi_unet.segmentation.planning.plan import Plan

VERSIONS = ("wsi-unet", "torch", "zarr", "tiffslide", "dask", "numpy")


@dataclass(frozen=True)
class OpenOutput:
    """An output that is laid out: the store, and the runs that fill it."""

    store: ByteStore
    labels: Run
    image: Run | None

    def progress(self, run: Run) -> Progress:
        """Return the progress files of a run."""
        return Progress(self.store, run.name)


def lay_out(plan: Plan, target: Target, ensemble: Ensemble) -> OpenOutput:
    """Write everything that isn't pixels, so that blocks can be written in any order.

    What is there already stays as it is, so a run killed in here just resumes. The record of the
    labels' run comes last: without it they don't count as begun.

    Raises:
        OutputError: if something can't be written.
    """
    store = open_store(plan.output)
    if target.replaces == WHOLE_STORE:
        layout.remove_all(store)
    elif target.replaces is not None:
        layout.remove_labels(store, target.replaces)
    store.clean()
    layout.ensure_root(store, {"slide": slide_record(plan.labels.slide)})
    created = datetime.now(UTC).isoformat(timespec="seconds")
    if plan.image is not None:
        # Recorded first: what is described without a record would count as stored already.
        _record_run(store, IMAGE_NAME, plan.image, created)
        if not layout.is_described(store, "", plan.image.pyramid, channels=3):
            frame = layout.Frame.of(plan.image.resampling.downsample, plan.image.slide.mpp)
            layout.create_image(store, plan.image.slide.name, plan.image.pyramid, frame)
    if target.stored is None or not labels_described(store, plan.labels):
        _create_labels(store, plan, ensemble, created)
    if plan.mask is not None and not _same_mask(plan.mask, target.mask):
        Progress(store, plan.labels.label).write_mask(plan.mask)
    _record_run(store, plan.labels.label, plan.labels, created)
    session = uuid.uuid4().hex[:12]
    image = plan.image
    return OpenOutput(
        store=store,
        labels=Run(plan.output, plan.labels.label, plan.labels.signature(), session),
        image=None if image is None else Run(plan.output, IMAGE_NAME, image.signature(), session),
    )


def _create_labels(store: ByteStore, plan: Plan, ensemble: Ensemble, created: str) -> None:
    labels = plan.labels
    frame = layout.Frame.of(labels.resampling.downsample, labels.slide.mpp)
    provenance = _provenance(plan, ensemble, created)
    for name, group in zip(labels.label_groups, ensemble.groups, strict=True):
        layout.create_labels(store, name, labels.pyramid, frame, group.classes, provenance)
    if labels.probabilities:
        spec = ensemble.spec
        values = {label.value: label for label in spec.labels}
        channels = [values[value] for value in spec.label_values]
        layout.create_probabilities(
            store, labels.label, labels.pyramid, frame, channels, provenance
        )


def _same_mask(mask: Mask, stored: Mask | None) -> bool:
    return stored is not None and mask_digest(mask) == mask_digest(stored)


def labels_described(store: ByteStore, labels: LabelParameters) -> bool:
    """Whether the metadata of label groups, and of their probabilities, is all there and sound."""
    groups: list[tuple[str, int | None]] = [
        (f"labels/{name}", None) for name in labels.label_groups
    ]
    if labels.probabilities:
        attributes = layout.group_attributes(store, f"probability/{labels.label}") or {}
        channels = attributes.get("ome", {}).get("omero", {}).get("channels", [])
        groups.append((f"probability/{labels.label}", len(channels)))
    return {*labels.label_groups} <= {*layout.label_names(store)} and all(
        layout.is_described(store, group, labels.pyramid, channels) for group, channels in groups
    )


def _record_run(
    store: ByteStore,
    name: str,
    parameters: LabelParameters | ImageParameters,
    created: str,
) -> None:
    """Store what this run is, unless that is what is stored."""
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
    """Take back what was made from all blocks together: some are computed (again) now."""
    progress = output.progress(run)
    if progress.read_tail(run.signature) is not None:
        progress.forget_tail()
    if run.kind == "labels":
        unfinish(output.store, run.name)


def unfinish(store: ByteStore, label: str) -> None:
    """Take back that a run's label groups are finished, where they say so."""
    for group in layout.groups_of(store, label):
        if _is_finished(store, group):
            layout.unfinish_labels(store, group)


def complete_labels(output: OpenOutput, labels: LabelParameters, classes: int) -> None:
    """Build the small levels and record what was found; every block must be marked done.

    Args:
        output: the output.
        labels: the label group's parameters.
        classes: number of the network's outputs.
    """
    store, pyramid = output.store, labels.pyramid
    progress = output.progress(output.labels)
    shards: dict[str, ShardRecord] = {}
    for name in labels.label_groups:
        shards |= build_tail(store, f"labels/{name}", pyramid, reduce_mode)
    if labels.probabilities:
        group = f"probability/{labels.label}"
        shards |= build_tail(store, group, pyramid, reduce_mean, channels=classes)
    progress.write_tail(shards, output.labels.signature)
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    pixels = label_pixels(progress, labels)
    for name, counts in zip(labels.label_groups, pixels, strict=True):
        layout.finish_labels(store, name, counts, finished)


def complete_image(output: OpenOutput, image: ImageParameters) -> None:
    """Build the image's small levels; every block must be marked done."""
    shards = build_tail(output.store, "", image.pyramid, reduce_mean, channels=3)
    Progress(output.store, IMAGE_NAME).write_tail(shards, image.signature())


def is_complete(output: OpenOutput, run: Run) -> bool:
    """Whether a run that has all its blocks was completed too, its small levels intact."""
    progress = output.progress(run)
    tail = progress.read_tail(run.signature)
    if tail is None or not progress.shards_exist(tail):
        return False
    return run.kind == "image" or is_finished(output.store, run.name)


def is_finished(store: ByteStore, label: str) -> bool:
    """Whether the label groups of a run say that they are finished."""
    groups = layout.groups_of(store, label)
    return bool(groups) and all(_is_finished(store, group) for group in groups)


def _is_finished(store: ByteStore, group: str) -> bool:
    attributes: dict[str, Any] = layout.group_attributes(store, f"labels/{group}") or {}
    return attributes.get("wsi_unet", {}).get("finished") is not None


def label_pixels(progress: Progress, labels: LabelParameters) -> list[list[int]]:
    """Return the predicted level-0 pixels of each label group by value, over all done blocks.

    Background counts inside the tissue mask only: what wasn't predicted isn't background tissue.
    Nothing is counted for any value where no block is done.
    """
    wanted = set(labels.blocks())
    sums: list[int] = []
    predicted = 0
    for marker in progress.markers(labels.signature()):
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


def _provenance(plan: Plan, ensemble: Ensemble, created: str) -> dict[str, JsonValue]:
    """Return what the label group says about its own making."""
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
        "slide": slide_record(labels.slide),
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

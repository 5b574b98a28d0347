"""The output of a run: what is there before, what is laid out, what completes it."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue, ValidationError

from wsi_unet.errors import OutputError
from wsi_unet.labels import layout
from wsi_unet.labels.objects import LocalObjects, open_objects
from wsi_unet.labels.progress import Progress, RunRecord
from wsi_unet.labels.pyramid import reduce_mean, reduce_mode
from wsi_unet.labels.writer import build_tail
from wsi_unet.segment.block import Mask
from wsi_unet.segment.parameters import ImageParameters, LabelParameters
from wsi_unet.segment.task import IMAGE, Run

if TYPE_CHECKING:
    from wsi_unet.models.checkpoint import Model
    from wsi_unet.segment.plan import Plan

VERSIONS = ("wsi-unet", "torch", "zarr", "tiffslide", "dask", "numpy")


@dataclass(frozen=True)
class Target:
    """Where a plan would write, and what is there already.

    Attributes:
        path: the output store.
        label: the label group.
        stored: parameters of the run that is there under that name.
        stored_image: parameters of the image that is there.
        levels: number of levels that everything in the store has; None for a new store.
        mask: the stored run's tissue mask.
        free_disk: bytes free at the output.
        replaces: the label group, or the whole store, that will be removed first.
    """

    path: Path
    label: str
    stored: LabelParameters | None = None
    stored_image: ImageParameters | None = None
    levels: int | None = None
    mask: Mask | None = None
    free_disk: int = 0
    replaces: str | None = None


WHOLE_STORE = ""
"""What `Target.replaces` says when everything goes."""


def inspect_target(path: Path, label: str, *, overwrite: bool) -> Target:
    """Look at what is at `path`; nothing is written.

    Args:
        path: the output store, which need not exist.
        label: name of the label group.
        overwrite: whether results under that name will be replaced.

    Raises:
        OptionError: if no label group can have that name.
        OutputError: if something else is there, or the place can't be written to.
    """
    layout.check_name(label)
    objects = open_objects(path)
    ours = layout.check_output(objects)
    free = _free_disk(path)
    if not ours:
        return Target(path, label, free_disk=free)
    others = [name for name in layout.label_names(objects) if name != label]
    if overwrite and not others:
        return Target(path, label, free_disk=free, replaces=WHOLE_STORE)
    progress = Progress(objects, label)
    return Target(
        path=path,
        label=label,
        stored=None if overwrite else stored_labels(progress),
        stored_image=stored_image(Progress(objects, IMAGE)),
        levels=layout.stored_levels(objects),
        mask=None if overwrite else progress.read_mask(),
        free_disk=free,
        replaces=label if overwrite else None,
    )


def stored_labels(progress: Progress) -> LabelParameters | None:
    """Return the parameters of the run stored under a label's name.

    Raises:
        OutputError: if they are damaged or of another version.
    """
    record = progress.read_run()
    if record is None:
        return None
    try:
        return LabelParameters.model_validate(record.parameters)
    except ValidationError as error:
        raise _other_version(progress) from error


def stored_image(progress: Progress) -> ImageParameters | None:
    """Return the parameters of the stored image.

    Raises:
        OutputError: if they are damaged or of another version.
    """
    record = progress.read_run()
    if record is None:
        return None
    try:
        return ImageParameters.model_validate(record.parameters)
    except ValidationError as error:
        raise _other_version(progress) from error


def _other_version(progress: Progress) -> OutputError:
    return OutputError(
        f"{progress.objects}: {progress.name!r} was computed by another version of wsi-unet; "
        "compute it anew with --overwrite"
    )


def _free_disk(path: Path) -> int:
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@dataclass(frozen=True)
class Opened:
    """An output that is laid out: the store, and the runs that fill it."""

    objects: LocalObjects
    labels: Run
    image: Run | None

    def progress(self, run: Run) -> Progress:
        """Return the progress files of a run."""
        return Progress(self.objects, run.name)


def lay_out(plan: Plan, target: Target, model: Model) -> Opened:
    """Write everything that isn't pixels, so that blocks can be written in any order.

    Doing it again on the same output changes nothing, so a run killed in here just resumes.

    Raises:
        OutputError: if something can't be written.
    """
    objects = open_objects(plan.output)
    if target.replaces == WHOLE_STORE:
        layout.remove_all(objects)
    elif target.replaces is not None:
        layout.remove_labels(objects, target.replaces)
    objects.clean()
    labels, image = plan.labels, plan.image
    run_id = uuid.uuid4().hex[:12]
    created = datetime.now(UTC).isoformat(timespec="seconds")
    slide: dict[str, JsonValue] = labels.slide.model_dump(mode="json", exclude={"path"})
    layout.ensure_root(objects, {"slide": slide})
    if image is not None and not target.stored_image:
        frame = layout.Frame.of(image.sampling.downsample, image.slide.mpp)
        layout.create_image(objects, image.slide.name, image.pyramid, frame)
        _write_run(objects, IMAGE, image, run_id, created)
    frame = layout.Frame.of(labels.sampling.downsample, labels.slide.mpp)
    provenance = _provenance(plan, model, created)
    spec = model.spec
    layout.create_labels(objects, labels.label, labels.pyramid, frame, spec.labels, provenance)
    if labels.probabilities:
        values = {label.value: label for label in spec.labels}
        channels = [values[value] for value in spec.label_values]
        layout.create_probabilities(
            objects, labels.label, labels.pyramid, frame, channels, provenance
        )
    progress = Progress(objects, labels.label)
    if plan.mask is not None:
        progress.write_mask(plan.mask)
    _write_run(objects, labels.label, labels, run_id, created)
    output = str(plan.output.absolute())
    return Opened(
        objects=objects,
        labels=Run(output, labels.label, run_id),
        image=None if image is None else Run(output, IMAGE, run_id),
    )


def complete_labels(opened: Opened, labels: LabelParameters, classes: int) -> None:
    """Build the small levels and record what was found; every block must be marked done.

    Args:
        opened: the output.
        labels: the label group's parameters.
        classes: number of the network's outputs.
    """
    objects, pyramid = opened.objects, labels.pyramid
    progress = opened.progress(opened.labels)
    shards = build_tail(objects, f"labels/{labels.label}", pyramid, reduce_mode)
    if labels.probabilities:
        group = f"probability/{labels.label}"
        shards |= build_tail(objects, group, pyramid, reduce_mean, channels=classes)
    progress.write_tail(shards)
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    layout.finish_labels(objects, labels.label, label_pixels(progress, labels), finished)


def complete_image(opened: Opened, image: ImageParameters) -> None:
    """Build the image's small levels; every block must be marked done."""
    shards = build_tail(opened.objects, "", image.pyramid, reduce_mean, channels=3)
    Progress(opened.objects, IMAGE).write_tail(shards)


def is_complete(opened: Opened, name: str) -> bool:
    """Whether a run that has all its blocks was completed too, its small levels intact."""
    progress = Progress(opened.objects, name)
    tail = progress.read_tail()
    if tail is None or not progress.shards_exist(tail):
        return False
    attributes = layout.group_attributes(opened.objects, f"labels/{name}") or {}
    return name == IMAGE or attributes.get("wsi_unet", {}).get("finished") is not None


def label_pixels(progress: Progress, labels: LabelParameters) -> list[int]:
    """Return the number of predicted level-0 pixels per label value, over all done blocks.

    Background counts inside the tissue mask only: what wasn't predicted isn't background tissue.
    """
    wanted = set(labels.blocks())
    sums: list[int] = []
    predicted = 0
    for marker in progress.markers():
        if marker.block not in wanted:
            continue
        sums = sums or [0] * len(marker.counts)
        sums = [total + count for total, count in zip(sums, marker.counts, strict=True)]
        predicted += marker.predicted
    if sums:
        sums[0] = predicted - sum(sums[1:])
    return sums


def _write_run(
    objects: LocalObjects,
    name: str,
    parameters: LabelParameters | ImageParameters,
    run_id: str,
    created: str,
) -> None:
    Progress(objects, name).write_run(
        RunRecord(
            name=name,
            signature=parameters.signature(),
            parameters=parameters.model_dump(mode="json"),
            resolved={"run_id": run_id},
            created=created,
        )
    )


def _provenance(plan: Plan, model: Model, created: str) -> dict[str, JsonValue]:
    """Return what the label group says about its own making."""
    labels = plan.labels
    return {
        "format_version": 1,
        "created": created,
        "signature": plan.signature,
        "slide": labels.slide.model_dump(mode="json", exclude={"path"}),
        "model": {
            "name": model.spec.name,
            "sha256": model.sha256,
            "spec": model.spec.model_dump(mode="json"),
        },
        "parameters": labels.model_dump(
            mode="json", exclude={"slide", "model", "processes_per_host"}
        ),
        "exactness": labels.exactness,
        "agreement": labels.agreement,
        "versions": {name: version(name) for name in VERSIONS},
    }

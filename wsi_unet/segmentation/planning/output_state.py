"""Inspecting a run's output before the run. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsi_unet.errors import OutputError
from wsi_unet.labels import contents
from wsi_unet.labels.documents import DamagedError, read_group_attributes
from wsi_unet.labels.names import IMAGE_NAME, check_label_name
from wsi_unet.labels.progress import Progress
from wsi_unet.locations import Location
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters, read_parameters
from wsi_unet.segmentation.references import SlideReference
from wsi_unet.slides.tissue.mask import TissueMask
from wsi_unet.storage.opening import open_store
from wsi_unet.storage.store import ByteStore

WHOLE_STORE = ""
"""The value of `OutputState.replaces` when everything is removed."""


@dataclass(frozen=True)
class OutputState:
    """A run's output before the run: where it is, and what is stored there already.

    Attributes:
        location: where the output store is, or will be.
        label: name of the run, and of its label group where there is only one.
        groups: the label groups that the run fills; an earlier run's keep their names.
        slide: name and fingerprint of the slide that the store is of; None for a new store.
        stored: parameters of the run that is stored under that name.
        stored_image: parameters of the stored image.
        levels: number of levels that everything in the store has; None for a new store.
        mask: the stored run's tissue mask.
        other_runs: runs whose label groups stay.
        free_disk: bytes that this run may use: those that are free, and those that its blocks take
            already; None where there is no limit.
        replaces: the run whose label groups will be removed first, or `WHOLE_STORE`.
    """

    location: Location
    label: str
    groups: tuple[str, ...]
    slide: tuple[str, str] | None = None
    stored: LabelParameters | None = None
    stored_image: ImageParameters | None = None
    levels: int | None = None
    mask: TissueMask | None = None
    other_runs: tuple[str, ...] = ()
    free_disk: int | None = None
    replaces: str | None = None


def inspect_output(
    location: Location, label: str, groups: tuple[str, ...], *, overwrite: bool
) -> OutputState:
    """Return what is stored at `location`.

    Args:
        location: where the output store is; it need not exist.
        label: name of the run.
        groups: names of the label groups that it fills.
        overwrite: whether results under that name will be replaced.

    Raises:
        OptionError: no label group can have that name.
        OutputError: something else is there, or it can't be read.
    """
    for name in (label, *groups):
        check_label_name(name)
    store = open_store(location)
    ours = contents.holds_output(store)
    free = store.free_bytes()
    if not ours:
        return OutputState(location, label, groups, free_disk=free)
    if free is not None:
        free += _count_stored_bytes(store, label) + _count_stored_bytes(store, IMAGE_NAME)
    other_runs = tuple(name for name in contents.read_run_names(store) if name != label)
    if overwrite and not other_runs:
        return OutputState(location, label, groups, free_disk=free, replaces=WHOLE_STORE)
    _check_owner(store, label, groups)
    progress = Progress(store, label)
    stored = None if overwrite else read_parameters(progress, LabelParameters)
    return OutputState(
        location=location,
        label=label,
        groups=groups if stored is None else stored.label_groups,
        slide=_read_slide(store),
        stored=stored,
        stored_image=read_parameters(Progress(store, IMAGE_NAME), ImageParameters),
        levels=contents.read_level_count(store),
        mask=None if overwrite else progress.read_mask(),
        other_runs=other_runs,
        free_disk=free,
        replaces=label if overwrite else None,
    )


def _check_owner(store: ByteStore, label: str, groups: tuple[str, ...]) -> None:
    """Raise an OutputError if another run has made one of the label groups."""
    for name in contents.read_label_names(store):
        owner = contents.read_run_name(store, name)
        if name not in groups or owner == label:
            continue
        if Progress(store, owner).read_run() is not None:  # else its metadata is lost
            raise OutputError(
                f"{store}: the labels {name!r} there belong to {owner!r}, not to {label!r}; "
                "choose another `output`, or rename the model"
            )


def describe_slide(slide: SlideReference) -> dict[str, Any]:
    """Return what the store's root says about the slide: everything but its path."""
    return slide.model_dump(mode="json", exclude={"path"})


def _read_slide(store: ByteStore) -> tuple[str, str] | None:
    """Return name and fingerprint of the slide that a store was made of."""
    attributes = read_group_attributes(store, "") or {}
    slide = attributes.get("wsi_unet", {}).get("slide", {})
    return (slide.get("name", ""), slide.get("fingerprint", "")) if slide else None


def _count_stored_bytes(store: ByteStore, name: str) -> int:
    """Return the bytes that a run's marked blocks take."""
    progress = Progress(store, name)
    try:
        record = progress.read_run()
    except DamagedError:
        return 0
    if record is None:
        return 0
    markers = progress.read_markers(record.signature)
    return sum(shard.length for marker in markers for shard in marker.shards.values())

"""The output before a run: what is there, and whose it is. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from wsi_unet.errors import OutputError
from wsi_unet.labels import layout
from wsi_unet.labels.contents import IMAGE_NAME
from wsi_unet.labels.progress import Progress
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters, SlideReference
from wsi_unet.slides.tissue.tissue import Mask
from wsi_unet.storage.store import ByteStore, open_store

P = TypeVar("P", LabelParameters, ImageParameters)

WHOLE_STORE = ""
"""What `Target.replaces` says when everything goes."""


@dataclass(frozen=True)
class Target:
    """Where a plan would write, and what is there already.

    Attributes:
        path: location of the output store.
        label: the run, and the label group where there is one.
        groups: the label groups that it fills; those that an earlier run began keep their names.
        slide: name and fingerprint of the slide that the store is of; None for a new store.
        stored: parameters of the run that is there under that name.
        stored_image: parameters of the image that is there.
        levels: number of levels that everything in the store has; None for a new store.
        mask: the stored run's tissue mask.
        others: runs whose label groups stay.
        free_disk: bytes that this run may use: free ones, and what its blocks take already; None
            where there is no limit.
        replaces: the run whose label groups will be removed first, or `WHOLE_STORE`.
    """

    path: str
    label: str
    groups: tuple[str, ...]
    slide: tuple[str, str] | None = None
    stored: LabelParameters | None = None
    stored_image: ImageParameters | None = None
    levels: int | None = None
    mask: Mask | None = None
    others: tuple[str, ...] = ()
    free_disk: int | None = None
    replaces: str | None = None


def inspect_target(path: str, label: str, groups: tuple[str, ...], *, overwrite: bool) -> Target:
    """Look at what is at `path`.

    Args:
        path: location of the output store, which need not exist.
        label: name of the run.
        groups: names of the label groups that it fills.
        overwrite: whether results under that name will be replaced.

    Raises:
        OptionError: if no label group can have that name.
        OutputError: if something else is there, or the place can't be read.
    """
    for name in (label, *groups):
        layout.check_name(name)
    store = open_store(path)
    ours = layout.check_output(store)
    free = store.free_bytes()
    if not ours:
        return Target(path, label, groups, free_disk=free)
    if free is not None:
        free += _stored_bytes(store, label) + _stored_bytes(store, IMAGE_NAME)
    others = tuple(name for name in layout.run_names(store) if name != label)
    if overwrite and not others:
        return Target(path, label, groups, free_disk=free, replaces=WHOLE_STORE)
    _check_owner(store, label, groups)
    progress = Progress(store, label)
    stored = None if overwrite else stored_parameters(progress, LabelParameters)
    return Target(
        path=path,
        label=label,
        groups=groups if stored is None else stored.label_groups,
        slide=_slide_of(store),
        stored=stored,
        stored_image=stored_parameters(Progress(store, IMAGE_NAME), ImageParameters),
        levels=layout.stored_levels(store),
        mask=None if overwrite else progress.read_mask(),
        others=others,
        free_disk=free,
        replaces=label if overwrite else None,
    )


def _check_owner(store: ByteStore, label: str, groups: tuple[str, ...]) -> None:
    """Refuse label groups that another run has made."""
    for name in layout.label_names(store):
        owner = layout.run_of(store, name)
        if name not in groups or owner == label:
            continue
        if Progress(store, owner).read_run() is not None:  # else its metadata is lost
            raise OutputError(
                f"{store}: the labels {name!r} there belong to {owner!r}, not to {label!r}; "
                "choose another output, or rename the model"
            )


def stored_parameters(progress: Progress, kind: type[P]) -> P | None:
    """Return the parameters of the run that is stored under a name.

    Raises:
        OutputError: if they are damaged or of another version.
    """
    record = progress.read_run()
    if record is None:
        return None
    try:
        return kind.model_validate(record.parameters)
    except ValidationError as error:
        raise OutputError(
            f"{progress.store}: {progress.name!r} was computed by another version of wsi-unet; "
            "compute it anew with --overwrite"
        ) from error


def slide_record(slide: SlideReference) -> dict[str, Any]:
    """Return what the root says of the slide; not where it lies."""
    return slide.model_dump(mode="json", exclude={"path"})


def _slide_of(store: ByteStore) -> tuple[str, str] | None:
    """Return name and fingerprint of the slide whose store this is."""
    attributes = layout.group_attributes(store, "") or {}
    slide = attributes.get("wsi_unet", {}).get("slide", {})
    return (slide["name"], slide["fingerprint"]) if slide else None


def _stored_bytes(store: ByteStore, name: str) -> int:
    """Return the bytes that the blocks of a run take, as far as its markers tell."""
    progress = Progress(store, name)
    record = progress.read_run()
    if record is None:
        return 0
    markers = progress.markers(record.signature)
    return sum(shard.length for marker in markers for shard in marker.shards.values())

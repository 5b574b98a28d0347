"""The label groups and probabilities of a result, as the page shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from wsi_unet.errors import OutputError
from wsi_unet.geometry import Shape
from wsi_unet.labels.contents import parse_frame, parse_run_name, read_label_names
from wsi_unet.labels.documents import (
    DamagedError,
    Positive,
    Side,
    StoredDocument,
    Text,
    read_array_shape,
    read_group_attributes,
)
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.pyramid import Pyramid
from wsi_unet.labels.stored_level import ShardRecords, StoredLevel, open_level
from wsi_unet.storage.store import ByteStore
from wsi_unet.viewer.painting import Colour
from wsi_unet.viewer.planes import PlaneReader

SAME = 1e-6
"""By what share two statements of a downsample may differ."""


class SlideFacts(StoredDocument):
    """What a result says about its slide.

    Attributes:
        name: its file name.
        fingerprint: what identifies it.
        shape: (rows, columns), px; None if it isn't said.
        mpp: (y, x) size of a pixel, µm; None if it isn't known.
    """

    name: Text = ""
    fingerprint: Text = ""
    shape: tuple[Side, Side] | None = None
    mpp: tuple[Positive, Positive] | None = None


class _Sampling(StoredDocument):
    downsample: tuple[Positive, Positive]


class _Parameters(StoredDocument):
    sampling: _Sampling | None = None


@dataclass(frozen=True, eq=False)
class ViewedGroup:
    """A label group.

    Attributes:
        name: its name.
        run: the run that made it.
        slide: its slide.
        frame: where its pixels lie.
        classes: names by label value, background left out.
        colours: likewise.
        pixels: number of pixels by label value; {} until it is finished.
        finished: when it was finished; None if it isn't.
        model: name of the model.
        labels: its labels.
    """

    name: str
    run: str
    slide: SlideFacts
    frame: Frame
    classes: Mapping[int, str]
    colours: Mapping[int, Colour]
    pixels: Mapping[int, int]
    finished: str | None
    model: str
    labels: PlaneReader

    @property
    def covered(self) -> Shape:
        """(rows, columns) that the labels cover, px of the slide, rounded."""
        (rows, columns), (y, x) = self.labels.pyramid.shape, self.labels.downsample
        return max(1, round(rows * y)), max(1, round(columns * x))


@dataclass(frozen=True, eq=False)
class ViewedProbabilities:
    """The probabilities of a run.

    Attributes:
        run: the run.
        channels: the class of each channel, and its probabilities.
    """

    run: str
    channels: tuple[tuple[str, PlaneReader], ...]


def open_group(store: ByteStore, name: str) -> ViewedGroup:
    """Open a label group; nothing but metadata is read.

    Raises:
        OutputError: there is no such group, or its metadata is damaged.
    """
    key = f"labels/{name}"
    attributes = read_group_attributes(store, key, "labels")
    if attributes is None:
        raise OutputError(f"{store}: {key!r} is listed but missing; compute it again")
    ours, label = attributes["wsi_unet"], attributes["ome"]["image-label"]
    run = parse_run_name(ours, name)
    properties = [item for item in label["properties"] if item["label-value"]]
    model = ours.get("model")
    return ViewedGroup(
        name=name,
        run=run,
        slide=_parse_slide(ours),
        frame=parse_frame(attributes),
        classes={item["label-value"]: item["class"] for item in properties},
        colours=_parse_colours(label["colors"]),
        pixels={item["label-value"]: item["pixels"] for item in properties if "pixels" in item},
        finished=ours["finished"],
        model=str(model.get("name", "")) if isinstance(model, dict) else "",
        labels=_open_planes(store, key, attributes, run)[0],
    )


def open_probabilities(store: ByteStore, run: str) -> ViewedProbabilities | None:
    """Open the probabilities of a run; None if it stored none.

    Raises:
        OutputError: their metadata is damaged.
    """
    key = f"probability/{run}"
    attributes = read_group_attributes(store, key, "channels")
    if attributes is None:
        return None
    names = [channel["label"] for channel in attributes["ome"]["omero"]["channels"]]
    planes = _open_planes(store, key, attributes, run, len(names))
    return ViewedProbabilities(run, tuple(zip(names, planes, strict=True)))


def list_groups(store: ByteStore) -> list[ViewedGroup]:
    """Open all label groups of a result.

    Raises:
        OutputError: what is said of one is damaged.
    """
    return [open_group(store, name) for name in read_label_names(store)]


def _parse_slide(ours: Mapping[str, Any]) -> SlideFacts:
    return SlideFacts.model_validate_json(json.dumps(ours.get("slide", {})))  # checked when read


def _parse_colours(colours: Sequence[Mapping[str, Any]]) -> dict[int, Colour]:
    return {item["label-value"]: (*item["rgba"][:3],) for item in colours}


def _open_planes(
    store: ByteStore, key: str, attributes: Mapping[str, Any], run: str, channels: int | None = None
) -> list[PlaneReader]:
    """Open the planes of a pyramid: one of labels, or as many as there are channels."""
    count = len(attributes["ome"]["multiscales"][0]["datasets"])
    records = ShardRecords.open(store, run)
    levels: list[StoredLevel] = [
        open_level(store, key, level, count, channels=channels is not None, records=records)
        for level in range(count)
    ]
    shape, side = read_array_shape(store, f"{key}/0")
    if channels is not None and shape[0] != channels:
        raise DamagedError(
            f"{store}: {key!r} has {shape[0]} channels and names of {channels}; segment again with "
            "`overwrite=True`"
        )
    pyramid = Pyramid((shape[-2], shape[-1]), side, count)
    downsample = _find_downsample(attributes, records)
    numbers = [None] if channels is None else range(channels)
    return [PlaneReader(levels, pyramid, number, downsample) for number in numbers]


def _find_downsample(
    attributes: Mapping[str, Any], records: ShardRecords | None
) -> tuple[float, float]:
    """Return the (y, x) px of the slide per pixel.

    The run's record says it exactly; the quotient of two pixel sizes may be rounded.
    """
    frame, slide = parse_frame(attributes), _parse_slide(attributes["wsi_unet"])
    sizes = (1.0, 1.0) if frame.unit is None or slide.mpp is None else slide.mpp
    stated = frame.scale[0] / sizes[0], frame.scale[1] / sizes[1]
    if records is None:
        return stated
    try:
        parsed = _Parameters.model_validate_json(json.dumps(records.run.parameters))
    except ValidationError:
        return stated
    if parsed.sampling is None:
        return stated
    exact = parsed.sampling.downsample
    near = all(abs(a - b) <= SAME * b for a, b in zip(exact, stated, strict=True))
    return exact if near else stated

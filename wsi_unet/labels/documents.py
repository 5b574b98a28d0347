"""Reading the documents of an output, which somebody else may have written or changed.

Every document is read with a limit on its bytes, parsed with a limit on its depth (pydantic's), and
validated once against a model with limits on every number, text and list. What passes may be used
without further checks; keys that aren't known here are kept but never relied on.

The models of what a run writes about its blocks are in `progress`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.metadata import describe_array
from wsi_unet.labels.names import OBJECTS_SUFFIX, check_label_name
from wsi_unet.labels.pyramid import (
    LONGEST_BLOCK,
    LONGEST_SIDE,
    MOST_LEVELS,
    UINT8,
    is_block_side,
)
from wsi_unet.storage.store import ByteStore, TooLargeError

MOST_METADATA_BYTES = 1 << 24
"""The most bytes of a zarr.json; a group's describes every model of an ensemble."""

MOST_CLASSES = 256
"""The most label values of a group, and the most channels of probabilities: labels are uint8."""

MOST_GROUPS = 1024
"""The most label groups of an output."""


def _check_name(name: str) -> str:
    try:
        return check_label_name(name)
    except OptionError as error:
        raise ValueError(str(error)) from error


def _check_listed_name(name: str) -> str:
    _check_name(name.removesuffix(OBJECTS_SUFFIX))
    return name


LabelName = Annotated[str, AfterValidator(_check_name)]
"""The name of a label group, or of the run that made it."""

ListedName = Annotated[str, AfterValidator(_check_listed_name)]
"""The name of a label group, or of a label image of objects, which may be longer."""

Text = Annotated[str, Field(max_length=1000)]
Side = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]
Count = Annotated[int, Field(ge=0, le=LONGEST_SIDE**2)]
Positive = Annotated[float, Field(gt=0, lt=1e12)]
Offset = Annotated[float, Field(gt=-1e12, lt=1e12)]
LabelValue = Annotated[int, Field(ge=0, lt=MOST_CLASSES)]
Level = Annotated[str, Field(pattern=r"^\d{1,2}$")]


class StoredDocument(BaseModel):
    """Base of what is read: no type is converted into another, and numbers are finite."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class _Scale(StoredDocument):
    type: Literal["scale"]
    scale: Annotated[tuple[Positive, ...], Field(min_length=2, max_length=3)]


class _Translation(StoredDocument):
    type: Literal["translation"]
    translation: Annotated[tuple[Offset, ...], Field(min_length=2, max_length=3)]


class _Dataset(StoredDocument):
    path: Level
    coordinateTransformations: tuple[_Scale, _Translation]  # noqa: N815, the key in the file


class _Axis(StoredDocument):
    name: Literal["c", "y", "x"]
    unit: Literal["micrometer"] | None = None


class _Multiscale(StoredDocument):
    axes: Annotated[tuple[_Axis, ...], Field(min_length=2, max_length=3)]
    datasets: Annotated[tuple[_Dataset, ...], Field(min_length=1, max_length=MOST_LEVELS)]


class _Color(StoredDocument):
    label_value: LabelValue = Field(alias="label-value")
    rgba: tuple[LabelValue, LabelValue, LabelValue, LabelValue]


class _Property(StoredDocument):
    label_value: LabelValue = Field(alias="label-value")
    name: Text = Field(alias="class")
    pixels: Count = 0
    area_mm2: Annotated[float, Field(ge=0, lt=1e12)] = 0.0


class _ImageLabel(StoredDocument):
    colors: Annotated[tuple[_Color, ...], Field(max_length=MOST_CLASSES)]
    properties: Annotated[tuple[_Property, ...], Field(max_length=MOST_CLASSES)]


class _Channel(StoredDocument):
    label: Text


class _Omero(StoredDocument):
    channels: Annotated[tuple[_Channel, ...], Field(min_length=1, max_length=MOST_CLASSES)]


Multiscales = Annotated[tuple[_Multiscale, ...], Field(min_length=1, max_length=1)]


class _Ome(StoredDocument):
    """What `ome` may hold; what is missing gets a value here, so that null isn't one."""

    multiscales: Multiscales = ()
    labels: Annotated[tuple[ListedName, ...], Field(max_length=2 * MOST_GROUPS)] = ()
    image_label: _ImageLabel = Field(
        default=_ImageLabel(colors=(), properties=()), alias="image-label"
    )
    omero: _Omero = _Omero.model_construct(channels=())


class _Slide(StoredDocument):
    name: Text = ""
    fingerprint: Text = ""
    shape: tuple[Side, Side] = (1, 1)
    mpp: tuple[Positive, Positive] | None = None


class _Ours(StoredDocument):
    format_version: int = 1
    run: LabelName = "unknown"
    slide: _Slide = _Slide()
    finished: Text | None = None


class _Attributes(StoredDocument):
    ome: _Ome = _Ome()
    wsi_unet: _Ours = _Ours()


class _Group(StoredDocument):
    zarr_format: Literal[3]
    node_type: Literal["group"]
    attributes: _Attributes


class _PyramidOme(_Ome):
    multiscales: Multiscales


class _LabelsOme(_PyramidOme):
    image_label: _ImageLabel = Field(alias="image-label")


class _ChannelsOme(_PyramidOme):
    omero: _Omero


class _FinishedOurs(_Ours):
    finished: Text | None


class _LabelAttributes(_Attributes):
    ome: _LabelsOme
    wsi_unet: _FinishedOurs


class _ChannelAttributes(_Attributes):
    ome: _ChannelsOme
    wsi_unet: _Ours


class _LabelGroup(_Group):
    attributes: _LabelAttributes


class _ChannelGroup(_Group):
    attributes: _ChannelAttributes


class _NameList(_Ome):
    labels: Annotated[tuple[ListedName, ...], Field(max_length=2 * MOST_GROUPS)]


class _NameListOurs(_Ours):
    object_images: Annotated[tuple[ListedName, ...], Field(max_length=MOST_GROUPS)] = ()


class _NameListAttributes(_Attributes):
    ome: _NameList
    wsi_unet: _NameListOurs = _NameListOurs()


class _NameListGroup(_Group):
    attributes: _NameListAttributes


class _ObjectImageOme(_PyramidOme):
    image_label: Any = Field(alias="image-label")


class _ObjectImageOurs(_Ours):
    signature: Text


class _ObjectImageAttributes(_Attributes):
    ome: _ObjectImageOme
    wsi_unet: _ObjectImageOurs


class _ObjectImageGroup(_Group):
    attributes: _ObjectImageAttributes


class _Array(StoredDocument):
    shape: Annotated[tuple[Side, ...], Field(min_length=2, max_length=3)]

    class _Grid(StoredDocument):
        class _Configuration(StoredDocument):
            chunk_shape: Annotated[tuple[Side, ...], Field(min_length=2, max_length=3)]

        configuration: _Configuration

    chunk_grid: _Grid


GroupKind = Literal["any", "labels", "channels", "list", "object image"]
"""What a group must have: nothing, labels, (c, y, x) arrays, the names of label groups, or numbers
of objects."""

_GROUPS: dict[GroupKind, type[_Group]] = {
    "any": _Group,
    "labels": _LabelGroup,
    "channels": _ChannelGroup,
    "list": _NameListGroup,
    "object image": _ObjectImageGroup,
}


class DamagedError(OutputError):
    """A document of an output isn't as a run writes it."""


def parse_json(data: bytes) -> Any:
    """Return what a JSON document says: of limited depth, and without NaN and infinities.

    Raises:
        ValueError: it isn't such a document.
    """
    return from_json(data, allow_inf_nan=False)


def explain_invalid(error: ValidationError) -> str:
    """Return what is wrong with a document, in a few words: where, and what."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"][:8]) or "the file"
    return f"{where}: {first['msg'].splitlines()[0][:200]}"


def read_group_attributes(
    store: ByteStore, group: str, kind: GroupKind = "any"
) -> dict[str, Any] | None:
    """Return the attributes of a group ("" for the root), None if there is no such group.

    Args:
        store: the output.
        group: the group's key, "labels/nuclei".
        kind: what the attributes must have; then these may be relied on.

    Raises:
        DamagedError: its metadata isn't as a run writes it.
        OutputError: it can't be read.
    """
    key = f"{group}/zarr.json" if group else "zarr.json"
    data = read_bounded(store, key, MOST_METADATA_BYTES)
    if data is None:
        return None
    with _damage_named(store, key):
        checked = _GROUPS[kind].model_validate_json(data)
        attributes: dict[str, Any] = parse_json(data)["attributes"]
        for multiscale in checked.attributes.ome.multiscales:
            _check_multiscale(multiscale)
    return attributes


def read_array_shape(
    store: ByteStore, array: str, dtype: np.dtype[Any] = UINT8
) -> tuple[tuple[int, ...], int]:
    """Return the shape of an array, and the side of its shards, px.

    Args:
        store: the output.
        array: the array's key, "labels/nuclei/0".
        dtype: type of its pixels.

    Raises:
        DamagedError: it isn't there, or isn't described as this package describes arrays.
        OutputError: it can't be read.
    """
    key = f"{array}/zarr.json"
    data = read_bounded(store, key, MOST_METADATA_BYTES)
    with _damage_named(store, key):
        if data is None:
            raise ValueError("it is missing")
        found, document = _Array.model_validate_json(data), parse_json(data)
        shape, side = found.shape, found.chunk_grid.configuration.chunk_shape[-1]
        if (
            side > LONGEST_BLOCK
            or not is_block_side(side)
            or (len(shape) == 3 and shape[0] > MOST_CLASSES)
            or not any(
                document == describe_array(shape, side, dtype, checksums=checksums)
                for checksums in (True, False)
            )
        ):
            raise ValueError("it describes another array")
    return shape, side


def read_bounded(store: ByteStore, key: str, most: int) -> bytes | None:
    """Return the bytes of a document, None if it isn't there.

    Raises:
        DamagedError: it has more than `most` bytes.
        OutputError: it can't be read.
    """
    try:
        return store.get(key, most)
    except TooLargeError as error:
        raise DamagedError(f"{error}; compute it again with `overwrite=True`") from error


@contextmanager
def _damage_named(store: ByteStore, key: str) -> Iterator[None]:
    """Raise a ValueError inside, which pydantic's are too, as a DamagedError about `key`."""
    try:
        yield
    except ValueError as error:
        what = explain_invalid(error) if isinstance(error, ValidationError) else str(error)
        raise DamagedError(
            f"{store}: {key!r} is damaged ({what}); compute the labels again with `overwrite=True`"
        ) from error


def _check_multiscale(multiscale: _Multiscale) -> None:
    """Raise a ValueError if its axes and levels don't belong together."""
    axes = "".join(axis.name for axis in multiscale.axes)
    if axes not in ("yx", "cyx"):
        raise ValueError(f"axes {axes}")
    for level, dataset in enumerate(multiscale.datasets):
        scale, translation = dataset.coordinateTransformations
        lengths = {len(scale.scale), len(translation.translation)}
        if dataset.path != str(level) or lengths != {len(axes)}:
            raise ValueError(f"level {level}")

"""Building the output's metadata documents, as plain dictionaries. No I/O.

Zarr v3 and OME-Zarr 0.5 (https://ngff.openmicroscopy.org/0.5/); image, labels and probabilities
share one coordinate system: the origin is the centre of the slide's first pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import JsonValue

from wsi_unet.labels.pyramid import UINT8, Pyramid
from wsi_unet.labels.shards import ZSTD_LEVEL, chunk_shape

OME_VERSION = "0.5"
Document = dict[str, JsonValue]
Method = Literal["mean", "mode"]

METHODS: Mapping[Method, str] = {
    "mean": "mean of 2 x 2 pixels, halves rounded up",
    "mode": "most frequent of 2 x 2 labels; 0 loses ties, else the lowest label wins",
}


class StoredClass(Protocol):
    """The meaning of one label value."""

    @property
    def value(self) -> int:
        """The pixel value; 0 is background."""
        ...

    @property
    def name(self) -> str:
        """The class's name."""
        ...

    @property
    def color(self) -> str:
        """The class's colour, "#rrggbb"."""
        ...


@dataclass(frozen=True)
class Frame:
    """The position of an array on the slide: pixel (i, j) is at translation + (i, j) * scale.

    Attributes:
        scale: pixel size (y, x), µm, or slide pixels where the slide's mpp isn't known.
        translation: from the centre of the slide's first pixel to the centre of the array's first
            pixel, (y, x), in the same unit.
        unit: "micrometer", or None for slide pixels.
    """

    scale: tuple[float, float]
    translation: tuple[float, float]
    unit: Literal["micrometer"] | None

    @classmethod
    def from_downsample(
        cls, downsample: tuple[float, float], mpp: tuple[float, float] | None
    ) -> Frame:
        """Return the frame of an array that covers the slide from its top left corner.

        Args:
            downsample: slide pixels per array pixel, (y, x).
            mpp: µm per slide pixel, (y, x); None if unknown.

        >>> Frame.from_downsample((8, 8), (0.5, 0.25))
        Frame(scale=(4.0, 2.0), translation=(1.75, 0.875), unit='micrometer')
        """
        sizes = mpp or (1.0, 1.0)
        (y, x), (slide_y, slide_x) = downsample, sizes
        return cls(
            scale=(y * slide_y, x * slide_x),
            translation=((y - 1) * slide_y / 2, (x - 1) * slide_x / 2),
            unit=None if mpp is None else "micrometer",
        )

    def at_level(self, level: int) -> Frame:
        """Return the frame of a pyramid level, whose pixels cover 2^level pixels a side."""
        factor = 1 << level
        return Frame(
            scale=(self.scale[0] * factor, self.scale[1] * factor),
            translation=(
                self.translation[0] + self.scale[0] * (factor - 1) / 2,
                self.translation[1] + self.scale[1] * (factor - 1) / 2,
            ),
            unit=self.unit,
        )

    def area_mm2(self, pixels: int) -> float | None:
        """Return the area of a number of pixels, mm²; None if their size isn't known."""
        return None if self.unit is None else pixels * self.scale[0] * self.scale[1] / 1e6


def describe_group(attributes: Mapping[str, JsonValue]) -> Document:
    """Return the `zarr.json` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def describe_array(
    shape: Sequence[int], shard_side: int, dtype: np.dtype[Any] = UINT8, *, checksums: bool = True
) -> Document:
    """Return the `zarr.json` of an array (y, x) or (c, y, x) that `encode_shard` fills.

    Args:
        shape: shape of the array.
        shard_side: rows and columns of a shard, px.
        dtype: type of the pixels.
        checksums: whether chunks carry checksums; those of earlier versions don't.
    """
    inner = chunk_shape(tuple(shape))
    little: Document = {"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [*inner[:-2], shard_side, shard_side]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": list(inner),
                    "codecs": [
                        {"name": "bytes", **little},
                        {
                            "name": "zstd",
                            "configuration": {"level": ZSTD_LEVEL, "checksum": checksums},
                        },
                    ],
                    "index_codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "crc32c"},
                    ],
                    "index_location": "end",
                },
            }
        ],
        "dimension_names": [*"cyx"[-len(shape) :]],
        "attributes": {},
        "storage_transformers": [],
    }


def describe_multiscales(
    name: str, pyramid: Pyramid, frame: Frame, method: Method, *, channels: bool
) -> list[JsonValue]:
    """Return the `multiscales` attribute of arrays "0", "1", … with axes (y, x) or (c, y, x)."""
    unit: Document = {} if frame.unit is None else {"unit": frame.unit}
    axes: list[JsonValue] = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    datasets: list[JsonValue] = []
    for level in range(pyramid.levels):
        level_frame = frame.at_level(level)
        scale, translation = list(level_frame.scale), list(level_frame.translation)
        if channels:
            scale, translation = [1.0, *scale], [0.0, *translation]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*scale]},
                    {"type": "translation", "translation": [*translation]},
                ],
            }
        )
    return [
        {
            "name": name,
            "type": method,
            "metadata": {"description": METHODS[method]},
            "axes": [{"name": "c", "type": "channel"}, *axes] if channels else axes,
            "datasets": datasets,
        }
    ]


def describe_channels(channels: Iterable[tuple[str, str, bool]]) -> Document:
    """Return the `omero` attribute, which tells viewers how to show (c, y, x) arrays.

    Args:
        channels: (label, colour "#rrggbb", whether it is shown at first) of each channel.
    """
    return {
        "channels": [
            {
                "label": label,
                "color": color.removeprefix("#").upper(),
                "active": active,
                "window": {"min": 0, "max": 255, "start": 0, "end": 255},
            }
            for label, color, active in channels
        ],
        "rdefs": {"model": "color"},
    }


def describe_classes(classes: Sequence[StoredClass], *, has_image: bool) -> Document:
    """Return the `image-label` attribute of labels.

    Args:
        classes: the meaning of the label values.
        has_image: whether the slide's image is stored beside the labels.
    """
    colors: list[JsonValue] = []
    properties: list[JsonValue] = []
    for item in classes:
        opaque = [*bytes.fromhex(item.color.removeprefix("#")), 255]
        colors.append(
            {"label-value": item.value, "rgba": [*opaque] if item.value else [0, 0, 0, 0]}
        )
        properties.append({"label-value": item.value, "class": item.name})
    document: Document = {"colors": colors, "properties": properties}
    return document | {"source": {"image": "../../"}} if has_image else document

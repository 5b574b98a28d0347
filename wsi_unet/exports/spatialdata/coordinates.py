"""SpatialData's coordinate systems: pixels of the slide, and micrometres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsi_unet.exports.results import ExportedGroup

GLOBAL = "global"
"""The coordinate system that viewers show: px of the slide, from its top left corner."""

MICROMETRES = "um"
"""The same in µm, where the slide's pixel size is known."""

Scales = Mapping[str, tuple[float, float]]
"""(y, x) factors from an element's own coordinates, by coordinate system."""


def find_scales(group: ExportedGroup, downsample: tuple[float, float]) -> Scales:
    """Return the scales of an element with a number of slide px per unit.

    Args:
        group: a label group of the slide.
        downsample: (y, x) slide px per unit of the element.
    """
    scales = {GLOBAL: downsample}
    if group.source.micrometres:
        height, width = (
            size / factor
            for size, factor in zip(group.source.pixel_size, group.source.downsample, strict=True)
        )
        scales[MICROMETRES] = downsample[0] * height, downsample[1] * width
    return scales


def describe_scales(axes: Sequence[str], scales: Scales) -> list[dict[str, Any]]:
    """Return transformations as the metadata of an element has them.

    Args:
        axes: its axes, of "c", "y", "x".
        scales: factors by coordinate system.
    """
    return [
        {
            "type": "scale",
            "scale": [{"c": 1.0, "y": y, "x": x}[axis] for axis in axes],
            "input": _describe_system("".join(axes), axes),
            "output": _describe_system(name, axes),
        }
        for name, (y, x) in scales.items()
    ]


def _describe_system(name: str, axes: Sequence[str]) -> dict[str, Any]:
    described = [
        {"name": axis, "type": "channel"}
        if axis == "c"
        else {"name": axis, "type": "space", "unit": "unit"}
        for axis in axes
    ]
    return {"name": name, "axes": described}

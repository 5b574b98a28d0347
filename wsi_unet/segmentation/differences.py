"""Describing how two runs differ."""

from __future__ import annotations

from typing import Any

from wsi_unet.slides.levels import format_mpp
from wsi_unet.wording import plain, write_size

NAMES = {
    "mpp": "pixel size",
    "sampling": "pixel grid",
    "levels": "number of levels",
    "tta": "test-time augmentation",
    "statistics": "intensity statistics",
}
"""Words for the entries of an identity that aren't called by their option's name."""

TISSUES = {"auto": "found in the slide", "mask": "a given mask"}

LONGEST_HASH = 8
"""Digits of a hash that are shown."""


def describe_differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Name the differences between two identities (`LabelParameters.identity`), in words.

    >>> describe_differences({"block": 512}, {"block": 1024})
    ['block (512 stored, 1024 requested)']
    >>> describe_differences(
    ...     {"sampling": [0, [1.0, 1.0], [300, 200]]}, {"sampling": [1, [1.25, 1.25], [240, 160]]}
    ... )
    ['pixel grid (200 x 300 px from level 0 stored, 160 x 240 px from level 1 requested)']
    """
    # Entries that only one of them has follow from others, like the tile from the precision.
    names = stored.keys() & wanted.keys()
    if all(stored[name] == wanted[name] for name in names):
        names = stored.keys() | wanted.keys()
    return [
        f"{NAMES.get(name, name)} ({_describe(name, stored.get(name))} stored, "
        f"{_describe(name, wanted.get(name))} requested)"
        for name in sorted(names)
        if stored.get(name) != wanted.get(name)
    ]


def _describe(name: str, value: Any) -> str:
    if value is None:
        return "unknown" if name == "mpp" else "none"
    if name == "sampling":
        level, _, (rows, columns) = value
        return f"{write_size((rows, columns))} from level {level}"
    if name == "mpp":
        return f"{format_mpp(*value)} µm"
    if name in ("model", "slide"):
        return f"{value[:LONGEST_HASH]}…"
    if name == "tissue":
        kind, _, digest = value.partition(":")
        return f"{TISSUES.get(kind, kind)} {digest[:LONGEST_HASH]}…" if digest else kind
    if name == "statistics":
        return "; ".join(f"mean {plain(mean)}, deviation {plain(std)}" for mean, std in value)
    return plain(value)

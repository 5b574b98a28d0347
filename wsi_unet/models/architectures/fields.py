"""Fields that the descriptions of several architectures share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

Width = Annotated[int, Field(ge=1, le=65536)]
"""Channels of a feature map."""


def _check_norm(norm: str) -> str:
    if not re.fullmatch(r"none|batch|instance|group:[1-9][0-9]{0,4}", norm):
        raise ValueError(f"{norm!r} is none of none, batch, instance, group:G (G groups)")
    return norm


Norm = Annotated[str, AfterValidator(_check_norm)]
"""What normalises a convolution's output: "none"; "batch", by running statistics; "instance", each
channel by its statistics over the whole image; "group:G", as instance in G groups of channels."""


def norm_groups(norm: str) -> int | None:
    """Return the number of groups of a group norm; None for any other norm.

    >>> norm_groups("group:8")
    8
    """
    kind, _, groups = norm.partition(":")
    return int(groups) if kind == "group" else None


def is_local(norm: str) -> bool:
    """Return whether a norm looks at a single pixel, rather than at the whole image."""
    return norm in {"none", "batch"}


def check_groups(norm: str, widths: set[int]) -> None:
    """Check that layers of these channels can be normalised in groups.

    Raises:
        ValueError: some can't.
    """
    groups = norm_groups(norm) or 1
    for width in sorted(widths):
        if width % groups:
            raise ValueError(f"norm: {width} channels don't make {groups} groups of equal size")

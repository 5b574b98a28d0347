"""The shapes that a mask of a slide can have."""

from __future__ import annotations

import math
from pathlib import Path

from wsi_unet.errors import MaskError
from wsi_unet.geometry import Shape
from wsi_unet.wording import write_size


def check_shape(path: Path, mask: Shape, slide: Shape) -> None:
    """Refuse a mask whose sides aren't the slide's reduced by one factor, rounded up or down.

    Args:
        path: the mask, for the message.
        mask: its (rows, columns).
        slide: the slide's (rows, columns), px.

    Raises:
        MaskError: the mask would be stretched more along one side than along the other.
    """
    if _fits(mask, slide):
        return
    rows = max(1, round(slide[0] * mask[1] / slide[1]))
    turned = ", or turn it by 90°" if _fits(mask[::-1], slide) else ""
    raise MaskError(
        f"{path}: the mask, {write_size(mask)}, has another shape than the slide, "
        f"{write_size(slide)}: it is turned, cropped, or of another slide; give one that covers "
        f"the whole slide, such as {write_size((rows, mask[1]))}{turned}"
    )


def _fits(mask: Shape, slide: Shape) -> bool:
    """Return whether some reduction makes the slide's sides the mask's, less than 1 px off each."""
    pairs = tuple(zip(mask, slide, strict=True))
    least = max(long / (short + 1) for short, long in pairs)
    most = min(long / (short - 1) if short > 1 else math.inf for short, long in pairs)
    return least < most

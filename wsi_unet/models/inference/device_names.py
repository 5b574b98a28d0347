"""The names of devices. Parsing one neither looks for the device nor loads torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from wsi_unet.errors import OptionError


@dataclass(frozen=True, slots=True)
class DeviceName:
    """A device as a caller names it.

    Attributes:
        kind: "auto" leaves the choice to the process that runs the model.
        index: which CUDA device; None where that is left open.
    """

    kind: Literal["auto", "cpu", "cuda"]
    index: int | None = None


def parse_device_name(text: str) -> DeviceName:
    """Parse "auto", "cpu", "cuda" or "cuda:<index>".

    >>> parse_device_name("cuda:1")
    DeviceName(kind='cuda', index=1)

    Raises:
        OptionError: it is none of these.
    """
    match = re.fullmatch(r"(auto|cpu|cuda)|cuda:([0-9]+)", text)
    if match is None:
        raise OptionError(
            f"device {text!r} is none of 'auto', 'cpu', 'cuda', 'cuda:0', 'cuda:1' …",
            option="device",
        )
    if match[2]:
        return DeviceName("cuda", int(match[2]))
    return DeviceName(cast('Literal["auto", "cpu", "cuda"]', match[1]))

"""What a caller may ask of a run, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from wsi_unet.errors import OptionError
from wsi_unet.geometry import Box
from wsi_unet.models.inference.augmentation import VIEWS, Tta
from wsi_unet.models.inference.device_names import parse_device_name

SMALLEST_BLOCK = 512
DEFAULT_BLOCK = 4096
OUTPUTS = ("labels", "probabilities")
IMAGES = ("overview", "full", "none")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


class OptionArguments(TypedDict, total=False):
    """The keyword arguments that `plan` and `segment` share; see `Options` for each."""

    reader: str
    mpp: float | None
    region: tuple[int, int, int, int] | None
    tissue: str
    outputs: tuple[str, ...]
    image: str | None
    block: int | None
    tile: int | None
    precision: str
    device: str
    tta: Tta
    trust: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller asks for. None and "auto" leave the choice to the plan.

    Attributes:
        reader: which slide reader to use; "auto" picks.
        mpp: size of the slide's level-0 pixels, µm; overrides what the file says.
        region: (x, y, width, height) in level-0 px; None is the whole slide. It is snapped
            outward to whole blocks, so exactness holds inside it.
        tissue: "auto", "none" (predict everywhere) or the path of a mask.
        outputs: "labels", and "probabilities" if wanted.
        image: what is stored of the slide beside the labels: "overview" (reduced), "full" or
            "none"; None keeps what an existing output has and means "overview" for a new one.
        block: side of a block, px: 512·2^j.
        tile: side of a tile's core, px: a multiple of the network's period.
        precision: "auto", "float32", "bfloat16" or "float16".
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        tta: "none", or which views of each window are predicted too and averaged: the 4 "flips",
            or all 8 flips and rotations, "d4".
        trust: whether the model may be a program that can run any code when it is loaded
            (TorchScript, torch.export).
    """

    reader: str = "auto"
    mpp: float | None = None
    region: tuple[int, int, int, int] | None = None
    tissue: str = "auto"
    outputs: tuple[str, ...] = ("labels",)
    image: str | None = None
    block: int | None = None
    tile: int | None = None
    precision: str = "auto"
    device: str = "auto"
    tta: Tta = "none"
    trust: bool = False

    def __post_init__(self) -> None:
        if self.region is not None and (len(self.region) != 4 or min(self.region[2:]) < 1):
            raise OptionError(f"region {self.region} is not (x, y, width, height) with a size > 0")
        self._check_choices()
        if self.block is not None and not _is_block(self.block):
            raise OptionError(
                f"block {self.block} is not 512 times a power of two; try {DEFAULT_BLOCK}"
            )
        if self.tile is not None and self.tile < 1:
            raise OptionError(f"tile {self.tile} is not a size in pixels")

    def _check_choices(self) -> None:
        if not self.outputs or self.outputs[0] != "labels" or not set(self.outputs) <= set(OUTPUTS):
            raise OptionError(
                f"outputs {','.join(self.outputs)!r}: 'labels' or 'labels,probabilities'"
            )
        if len(set(self.outputs)) != len(self.outputs):
            raise OptionError(f"outputs {','.join(self.outputs)!r} name one twice")
        if self.image is not None and self.image not in IMAGES:
            raise OptionError(f"image {self.image!r} is none of {', '.join(IMAGES)}")
        if self.precision not in PRECISIONS:
            raise OptionError(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        parse_device_name(self.device)
        if self.tta not in VIEWS:
            raise OptionError(f"tta {self.tta!r} is none of {', '.join(VIEWS)}")

    @property
    def probabilities(self) -> bool:
        """Whether class probabilities are stored too."""
        return "probabilities" in self.outputs

    @property
    def mask_path(self) -> Path | None:
        """The caller's own tissue mask, if one was given."""
        return None if self.tissue in ("auto", "none") else Path(self.tissue)

    @property
    def region_box(self) -> Box | None:
        """The region as a box in level-0 px."""
        if self.region is None:
            return None
        x, y, width, height = self.region
        return Box(y, x, y + height, x + width)


def _is_block(side: int) -> bool:
    factor, rest = divmod(side, SMALLEST_BLOCK)
    return rest == 0 and factor > 0 and factor & (factor - 1) == 0

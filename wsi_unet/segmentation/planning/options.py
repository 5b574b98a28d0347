"""The options of a run as a caller gives them, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from wsi_unet.errors import OptionError
from wsi_unet.geometry import Box
from wsi_unet.labels.pyramid import CHUNK, is_block_side
from wsi_unet.models.inference.augmentation import VIEWS, Tta
from wsi_unet.models.inference.device_names import parse_device_name
from wsi_unet.wording import plain

if TYPE_CHECKING:
    from wsi_unet.objects.options import NumberPerClass, TextPerClass

DEFAULT_BLOCK = 4096
OUTPUTS = ("labels", "objects", "probabilities")
MOST_ENLARGED = 4.0
"""How many times as large as the model's a slide's pixels may be unless the caller allows more."""
IMAGES = ("overview", "full", "none")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


class OptionArguments(TypedDict, total=False):
    """The keyword arguments that `plan` and `segment` share; see `Options` for each."""

    reader: str
    series: str | None
    mpp: float | None
    allow_scale: bool
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
    split: TextPerClass
    min_area: NumberPerClass
    max_area: NumberPerClass
    measure: str | Sequence[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a run. None and "auto" leave the choice to the plan.

    Attributes:
        reader: the reader that opens the slide; "auto" picks one.
        series: number or name of the image to segment, of several in the slide's file; None is the
            largest.
        mpp: size of the slide's level-0 pixels, µm; overrides what the file says.
        allow_scale: whether the slide's pixels may be more than `MOST_ENLARGED` times as large as
            the model's. They may always be smaller: they are averaged then.
        region: (x, y, width, height) in level-0 px; None is the whole slide. Labels of pixels whose
            centres lie inside are those of the whole slide; all others are 0.
        tissue: "auto", "none" (predict everywhere) or the path of a mask.
        outputs: "labels", and "probabilities" if they are to be stored too, and "objects" if the
            labels' objects are to be found too.
        image: which picture of the slide is stored beside the labels: "overview" (reduced), "full"
            or "none"; None keeps what an existing output has, and is "overview" for a new one.
        block: side of a block, px: 512·2^j.
        tile: side of a tile's core, px: a multiple of the network's period.
        precision: "auto", "float32", "bfloat16" or "float16".
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        tta: test-time augmentation: "none", or the views of each window that are predicted and
            averaged: the 4 "flips", or all 8 flips and rotations ("d4").
        trust: whether the model may be a program that can run any code when it is loaded
            (TorchScript, torch.export).
        split, min_area, max_area, measure: how objects are found and what is measured, as for
            `find_objects`; without "objects" among the outputs they mean nothing, and are refused.
    """

    reader: str = "auto"
    series: str | None = None
    mpp: float | None = None
    allow_scale: bool = False
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
    split: TextPerClass = None
    min_area: NumberPerClass = None
    max_area: NumberPerClass = None
    measure: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.region is not None and (len(self.region) != 4 or min(self.region[2:]) < 1):
            raise OptionError(
                f"region {plain(self.region)} is not (x, y, width, height) with a width and height "
                "of at least 1",
                option="region",
            )
        self._check_outputs()
        for option, value, choices in (
            ("image", self.image, (None, *IMAGES)),
            ("precision", self.precision, PRECISIONS),
            ("tta", self.tta, VIEWS),
        ):
            if value not in choices:
                names = ", ".join(filter(None, choices))
                raise OptionError(f"{option} {value!r} is none of {names}", option=option)
        parse_device_name(self.device)
        if self.block is not None and not is_block_side(self.block):
            raise OptionError(
                f"block {self.block} is not {CHUNK} times a power of two; try "
                f"`block={DEFAULT_BLOCK}`",
                option="block",
            )
        if self.tile is not None and self.tile < 1:
            raise OptionError(f"tile {self.tile} is not a size in pixels", option="tile")

    def _check_outputs(self) -> None:
        names = ",".join(self.outputs)
        if not self.outputs or self.outputs[0] != "labels" or not set(self.outputs) <= set(OUTPUTS):
            raise OptionError(
                f"outputs {names!r} isn't 'labels', with or without 'objects' and 'probabilities'",
                option="outputs",
            )
        if len(set(self.outputs)) != len(self.outputs):
            raise OptionError(f"outputs {names!r} names one twice", option="outputs")
        for option in ("split", "min_area", "max_area", "measure"):
            if getattr(self, option) is not None and not self.objects:
                raise OptionError(
                    f"`{option}` is about objects, which aren't among the outputs; give "
                    "`outputs=('labels', 'objects')`",
                    option=option,
                )

    @property
    def objects(self) -> bool:
        """Whether the labels' objects are found too."""
        return "objects" in self.outputs

    @property
    def probabilities(self) -> bool:
        """Whether class probabilities are stored too."""
        return "probabilities" in self.outputs

    @property
    def mask_path(self) -> str | None:
        """The path of the caller's own tissue mask, if one was given."""
        return None if self.tissue in ("auto", "none") else self.tissue

    @property
    def region_box(self) -> Box | None:
        """The region as a box in level-0 px."""
        if self.region is None:
            return None
        x, y, width, height = self.region
        return Box(y, x, y + height, x + width)

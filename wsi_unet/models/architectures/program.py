"""A network that comes as a program (ONNX, TorchScript, torch.export) or as a module."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from wsi_unet.geometry import Border
from wsi_unet.models.architectures.costs import ForwardCost
from wsi_unet.models.number_types import Precision


class ProgramConfig(BaseModel):
    """What was measured of a network whose layers aren't known.

    Attributes:
        family: which kind of network this describes.
        kind: what runs it.
        in_channels: channels of the image.
        classes: channels of the output, one logit (or probability, see `ModelSpec.head`) each.
        period: cores start at multiples of this, px.
        before: rows and columns of context above and left of a core, px.
        after: rows and columns of context below and right of a core, px.
        shrink: px by which the output is smaller than the input on each side.
        local: whether a pixel of the output depends only on what is within the border around it.
        depends_on_size: whether the output depends on the image's size beyond the border. Called
            `sized` in model.json.
        input_side: the only side that it takes, px; None: any multiple of the period.
        parameters: numbers in its weights; 0 where they weren't counted.
        flops_per_pixel: floating-point operations per px of its input, roughly.
        bytes_per_pixel: memory per px of its input, bytes, roughly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)

    family: Literal["program"] = "program"
    kind: Literal["onnx", "torchscript", "export", "module"]
    in_channels: int = Field(ge=1, le=64)
    classes: int = Field(ge=1, le=255)
    period: int = Field(ge=1, le=512)
    before: int = Field(ge=0, le=16384)
    after: int = Field(ge=0, le=16384)
    shrink: int = Field(default=0, ge=0, le=16384)
    local: bool
    depends_on_size: bool = Field(
        validation_alias=AliasChoices("sized", "depends_on_size"), serialization_alias="sized"
    )
    input_side: int | None = Field(default=None, ge=1, le=16384)
    parameters: int = Field(default=0, ge=0)
    flops_per_pixel: float = Field(default=0, ge=0, allow_inf_nan=False)
    bytes_per_pixel: float = Field(default=0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.period & (self.period - 1):
            raise ValueError(f"period: {self.period} is not a power of two")
        return self

    @property
    def classes_out(self) -> int:
        """Channels of the output."""
        return self.classes

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Number types that it can run in; a program file has its own, float32."""
        return get_args(Precision) if self.kind == "module" else ("float32",)

    def border(self) -> Border:
        """Return the context that a core needs, as measured; beyond the slide it is mirrored."""
        return Border(self.before, self.after, self.shrink, self.period, "mirror")

    def forward_cost(self, side: int, item_bytes: int) -> ForwardCost:
        """Return roughly the cost of one forward pass on `side` × `side` px, in float32."""
        pixels = side * side
        size = int(self.bytes_per_pixel * pixels)
        flops, left = int(self.flops_per_pixel * pixels), side - 2 * self.shrink
        return ForwardCost(flops, self.parameters, size, size, 0, pixels, left)

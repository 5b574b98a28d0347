"""What a U-Net looks like, as data: read without torch, stored in a model's spec."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["float32", "bfloat16", "float16"]
"""Number types that a network can run in."""


class UNetConfig(BaseModel):
    """The shape of one U-Net (Ronneberger et al. 2015, figure 1, and its common variants).

    The defaults are the paper's network: valid convolutions, four poolings, 64 channels at the
    top, two classes.

    Attributes:
        family: which network this describes; the only one so far.
        padding: "valid" (the paper: every 3×3 convolution eats one pixel per side) or "same"
            (zeros are added, the output is as large as the input).
        depth: number of 2×2 poolings, d.
        base_width: channels of the first level; each pooling doubles them.
        in_channels: channels of the image.
        classes: channels of the output, one logit per class.
        upsampling: "transpose" (the paper's 2×2 up-convolution, stride 2) or "bilinear" (a 1×1
            convolution that halves the channels, then ×2 interpolation, align_corners=False).
        batch_norm: whether each 3×3 convolution is followed by batch normalisation before its
            ReLU (the convolution has no bias then).
        dropout: share of values dropped at the end of the contracting path, while training.
        convolutions: 3×3 convolutions per level and side, k (the paper: 2).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["unet"] = "unet"
    padding: Literal["valid", "same"] = "valid"
    depth: int = Field(default=4, ge=1, le=6)
    base_width: int = Field(default=64, ge=1, le=512)
    in_channels: int = Field(default=3, ge=1, le=64)
    classes: int = Field(default=2, ge=2, le=255)
    upsampling: Literal["transpose", "bilinear"] = "transpose"
    batch_norm: bool = False
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, allow_inf_nan=False)
    convolutions: int = Field(default=2, ge=1, le=4)

    @property
    def period(self) -> int:
        """M = 2^depth: the pooling grid repeats every so many px."""
        return int(2**self.depth)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level, from the top to the bottom (depth + 1 of them)."""
        return tuple(self.base_width * 2**level for level in range(self.depth + 1))

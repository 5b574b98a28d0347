"""What a U-Net looks like, as data: read without torch, stored in a model's spec."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from wsi_unet.geometry import Border
from wsi_unet.models.architectures.border import derive_border
from wsi_unet.models.architectures.costs import Count, Work

Precision = Literal["float32", "bfloat16", "float16"]
"""Number types that a network can run in."""

Width = Annotated[int, Field(ge=1, le=65536)]


class Channels(BaseModel):
    """The channels of every feature map, where they aren't the paper's doubling.

    Attributes:
        contracting: of each level, from the top to the bottom.
        upsampled: after each upsampling, from the bottom to the top; None where maps are
            interpolated as they are.
        expanding: of every convolution after a join, level by level from the bottom to the top.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contracting: tuple[Width, ...] = Field(min_length=2, max_length=7)
    upsampled: tuple[Width, ...] | None
    expanding: tuple[tuple[Width, ...], ...]


class UNetConfig(BaseModel):
    """The shape of one U-Net (Ronneberger et al. 2015, figure 1, and its common variants).

    The defaults are the paper's network: valid convolutions, four poolings, 64 channels at the
    top, two classes.

    Attributes:
        family: which kind of network this describes.
        padding: "valid" (the paper: every 3×3 convolution eats one pixel per side) or "same"
            (zeros are added, the output is as large as the input).
        depth: number of 2×2 poolings, d.
        base_width: channels of the first level; each pooling doubles them.
        channels: all channels, where they follow another rule than that.
        in_channels: channels of the image.
        classes: channels of the output, one logit per class.
        upsampling: "transpose" (the paper's 2×2 up-convolution, stride 2) or "bilinear" (a 1×1
            convolution to the wanted channels, if they change, then ×2 interpolation).
        align_corners: whether that interpolation maps corner pixels onto corner pixels, which
            makes it depend on the size of the map.
        norm: what normalises each 3×3 convolution's output: "none", "batch", or "instance"
            (over all of the image, so that the result depends on its size).
        norm_first: whether the normalisation stands before the activation (the convolution has
            no bias then) or after it.
        negative_slope: slope of the activation below 0; 0 is ReLU. Called `leak` in model.json.
        odd: what fills up a map that is a row or column smaller than the one it joins, since
            that had an odd side: "zeros", its own edge ("replicate"), or nothing ("none": such
            images are refused).
        dropout: share of values dropped at the end of the contracting path, while training.
        convolutions: 3×3 convolutions per level and side, k (the paper: 2).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)

    family: Literal["unet"] = "unet"
    padding: Literal["valid", "same"] = "valid"
    depth: int = Field(default=4, ge=1, le=6)
    base_width: int = Field(default=64, ge=1, le=512)
    channels: Channels | None = None
    in_channels: int = Field(default=3, ge=1, le=64)
    classes: int = Field(default=2, ge=1, le=255)
    upsampling: Literal["transpose", "bilinear"] = "transpose"
    align_corners: bool = False
    norm: Literal["none", "batch", "instance"] = "none"
    norm_first: bool = True
    negative_slope: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        allow_inf_nan=False,
        validation_alias=AliasChoices("leak", "negative_slope"),
        serialization_alias="leak",
    )
    odd: Literal["none", "zeros", "replicate"] = "none"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, allow_inf_nan=False)
    convolutions: int = Field(default=2, ge=1, le=4)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.align_corners and self.upsampling != "bilinear":
            raise ValueError("align_corners: only bilinear upsampling has corners to align")
        if self.padding == "valid" and (self.align_corners or self.odd != "none"):
            raise ValueError("valid convolutions go neither with align_corners nor with odd sides")
        if self.channels is None:
            return self
        levels = len(self.channels.contracting), len(self.channels.expanding)
        if levels != (self.depth + 1, self.depth):
            raise ValueError(f"channels: {levels} levels don't make a U-Net of depth {self.depth}")
        upsampled = self.channels.upsampled
        if upsampled is None and self.upsampling == "transpose":
            raise ValueError("channels.upsampled: a transposed convolution needs its channels")
        if upsampled is not None and len(upsampled) != self.depth:
            raise ValueError(f"channels.upsampled: {len(upsampled)} numbers, not {self.depth}")
        if any(len(widths) != self.convolutions for widths in self.channels.expanding):
            raise ValueError(f"channels.expanding: not {self.convolutions} convolutions per level")
        return self

    @property
    def classes_out(self) -> int:
        """Channels of the output."""
        return self.classes

    @property
    def period(self) -> int:
        """M = 2^depth: the pooling grid repeats every so many px."""
        return int(2**self.depth)

    @property
    def layout(self) -> Channels:
        """All channels: those given, or the paper's."""
        if self.channels is not None:
            return self.channels
        widths = tuple(self.base_width * 2**level for level in range(self.depth + 1))
        upwards = tuple(reversed(widths[:-1]))
        expanding = tuple((width,) * self.convolutions for width in upwards)
        return Channels(contracting=widths, upsampled=upwards, expanding=expanding)

    @property
    def local(self) -> bool:
        """Whether a pixel of the output depends only on what is near it."""
        return self.norm != "instance"

    @property
    def sized(self) -> bool:
        """Whether the result depends on the size of the image, unless the network is told."""
        return self.align_corners or not self.local

    def border(self) -> Border:
        """Return the context that a core needs (see `wsi_unet.models.architectures.border`)."""
        return derive_border(self)

    def work(self, side: int, item: int) -> Work:
        """Return what running the network on `side` × `side` px takes, `item` bytes a number."""
        return _follow(self, Count(side, item))


def _follow(config: UNetConfig, count: Count) -> Work:
    """Follow `UNet.forward` map by map."""
    layout = config.layout

    def convolve(held: int, channels: int, widths: tuple[int, ...]) -> int:
        """Run a level's convolutions on a map whose bytes are held until they are all done."""
        previous = 0
        for width in widths:
            count.side -= 2 if config.padding == "valid" else 0
            new = count.convolve(channels, width, 3)
            count.drop(previous)
            previous, channels = new, width
        count.drop(held)
        return previous

    skips = []
    held, channels = 0, config.in_channels
    for level, width in enumerate(layout.contracting):
        held = convolve(held, channels, (width,) * config.convolutions)
        channels = width
        if level < config.depth:
            skips.append((held, width))
            count.side //= 2
            held = count.hold(width)
            count.spend(8 * width * count.side**2)  # the places of the maxima, in int64
    for level, widths in enumerate(layout.expanding):
        width = channels
        if layout.upsampled is not None:
            width = layout.upsampled[level]
            count.multiply(channels, width, 2 if config.upsampling == "transpose" else 1)
        count.side *= 2
        upsampled = count.hold(width)
        count.drop(held)
        skip, skip_width = skips.pop()
        held = count.hold(skip_width + width)
        count.drop(upsampled + skip)
        held = convolve(held, skip_width + width, widths)
        channels = widths[-1]
    count.multiply(channels, config.classes, 1)
    return count.work(held)

"""A U-Net of strided convolutions and residual units, as data; see `networks.residual_unet`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from wsi_unet.geometry import Border
from wsi_unet.models.architectures import reach
from wsi_unet.models.architectures.costs import CostCounter, ForwardCost
from wsi_unet.models.architectures.fields import Norm, Width, check_groups, is_local


class ResidualUNetConfig(BaseModel):
    """The shape of one such network (Kerfoot et al. 2019, doi:10.1007/978-3-030-12029-0_40).

    Attributes:
        family: which kind of network this describes.
        channels: channels of each level, from the top (at half the image's size) to the bottom (at
            the size of the level above it).
        units: convolutions in each residual unit on the way down; 0: a single convolution without
            a shortcut, on the way down and up.
        in_channels: channels of the image.
        classes: channels of the output, one logit per class.
        norm: what normalises each convolution's output: "none", "batch", "instance" (over all of
            the image), or "group:G" (likewise, in G groups of channels).
        affine: whether instance or group normalisation has weights.
        negative_slope: slope of the activation below 0 (0: ReLU); None: learnt, one per layer.
            Called `leak` in model.json.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)

    family: Literal["residual-unet"] = "residual-unet"
    channels: tuple[Width, ...] = Field(
        default=(16, 32, 64, 128, 256),
        min_length=2,
        max_length=8,
        strict=False,  # JSON has lists, not tuples
    )
    units: int = Field(default=2, ge=0, le=8)
    in_channels: int = Field(default=3, ge=1, le=64)
    classes: int = Field(default=2, ge=1, le=255)
    norm: Norm = "instance"
    affine: bool = False
    negative_slope: float | None = Field(
        default=None,
        ge=0.0,
        lt=1.0,
        allow_inf_nan=False,
        validation_alias=AliasChoices("leak", "negative_slope"),
        serialization_alias="leak",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_groups(self.norm, self._normed_widths())
        return self

    def _normed_widths(self) -> set[int]:
        """Return the channels of the layers that are normalised.

        The topmost one, of the logits, is where another convolution follows it.
        """
        after = [after for _, after in self.upwards]
        return {*self.channels, *(after if self.units else after[:-1])}

    @property
    def depth(self) -> int:
        """Number of halvings."""
        return len(self.channels) - 1

    @property
    def classes_out(self) -> int:
        """Channels of the output."""
        return self.classes

    @property
    def period(self) -> int:
        """The grid of the halvings repeats after this many px."""
        return int(2**self.depth)

    @property
    def local(self) -> bool:
        """Whether a pixel of the output depends only on what is within the border around it."""
        return is_local(self.norm)

    @property
    def depends_on_size(self) -> bool:
        """Whether the output depends on the image's size."""
        return not self.local

    @property
    def upwards(self) -> tuple[tuple[int, int], ...]:
        """Channels (before, after) of each stage on the way up, from the bottom."""
        widths = self.channels
        joined = (widths[-1] + widths[-2], *(2 * width for width in widths[-3::-1]))
        return tuple(zip(joined, (*widths[-3::-1], self.classes), strict=True))

    def border(self) -> Border:
        """Return the context that a core needs, by following it back through the layers."""
        wanted = (0, self.period - 1)
        copied = []
        for _ in range(self.depth):
            if self.units:
                wanted = reach.trace_convolution(wanted, 3, padding=1)
            wanted = reach.trace_transposed_convolution(wanted, 3, stride=2, padding=1)
            copied.append(wanted)
        for _ in range(max(1, self.units)):
            wanted = reach.trace_convolution(wanted, 3, padding=1)
        for skip in reversed(copied):
            wanted = reach.join(wanted, skip)
            for _ in range(max(1, self.units) - 1):
                wanted = reach.trace_convolution(wanted, 3, padding=1)
            wanted = reach.trace_convolution(wanted, 3, stride=2, padding=1)
        return reach.border_reached(wanted, self.period)

    def forward_cost(self, side: int, item_bytes: int) -> ForwardCost:
        """Return the cost of a forward pass on `side` × `side` px, with `item_bytes` per number."""
        return _follow_forward(self, CostCounter(side, item_bytes))


def _follow_forward(config: ResidualUNetConfig, count: CostCounter) -> ForwardCost:
    """Follow `ResidualUNet.forward` map by map."""
    skips = []
    held, channels = 0, config.in_channels
    for level, width in enumerate(config.channels):
        held = _follow_unit(config, count, channels, width, 1 if level == config.depth else 2)
        channels = width
        skips.append(held)
    skips.pop()
    for before, after in config.upwards:
        joined = count.hold(before)
        count.drop(held + skips.pop())
        count.multiply(before, after, 3)  # a transposed convolution
        count.side *= 2
        held = _activated(config, count, count.hold(after))
        count.drop(joined)
        if config.units:
            new = count.convolve(after, after, 3)
            count.drop(held)
            held = new
    return count.total(held)


def _follow_unit(
    config: ResidualUNetConfig, count: CostCounter, channels: int, width: int, stride: int
) -> int:
    """Follow the convolutions of one level and their shortcut; return the bytes of their sum."""
    side, shortcut = count.side, 0
    if config.units and (stride > 1 or channels != width):
        shortcut = count.convolve(channels, width, 3 if stride > 1 else 1, stride)
        count.side = side
    previous = 0
    for index in range(max(1, config.units)):
        before = width if index else channels
        new = count.convolve(before, width, 3, 1 if index else stride)
        new = _activated(config, count, new)
        count.drop(previous)
        previous = new
    count.drop(shortcut)
    return previous


def _activated(config: ResidualUNetConfig, count: CostCounter, held: int) -> int:
    """Count the activation of a map of `held` bytes, and return these; a learnt one copies it."""
    if config.negative_slope is None:
        count.spend(held)
    return held

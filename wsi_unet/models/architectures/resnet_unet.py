"""A U-Net whose contracting path is a ResNet, as data; the network is `networks.resnet_unet`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from wsi_unet.geometry import Border
from wsi_unet.models.architectures import reach
from wsi_unet.models.architectures.costs import CostCounter, ForwardCost
from wsi_unet.models.architectures.fields import Width

Blocks = Annotated[int, Field(ge=1, le=64)]

DEPTH = 5
"""Halvings of the image: by the first convolution, by a pooling, and by three of the stages."""


class ResNetUNetConfig(BaseModel):
    """The shape of one such network; the defaults are those of ResNet-34.

    Attributes:
        family: which kind of network this describes.
        blocks: residual blocks in each of the four stages.
        bottleneck: whether a block has three convolutions (1×1, 3×3, 1×1 with four times the
            channels, as from ResNet-50 on) or two 3×3 ones.
        base_width: channels of the first convolution and stage; each further stage doubles them.
        expanding: channels of the expanding path, from the bottom to the top.
        in_channels: channels of the image.
        classes: channels of the output, one logit per class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: Literal["resnet-unet"] = "resnet-unet"
    # JSON has lists, not tuples.
    blocks: tuple[Blocks, Blocks, Blocks, Blocks] = Field(default=(3, 4, 6, 3), strict=False)
    bottleneck: bool = False
    base_width: int = Field(default=64, ge=1, le=512)
    expanding: tuple[Width, Width, Width, Width, Width] = Field(
        default=(256, 128, 64, 32, 16), strict=False
    )
    in_channels: int = Field(default=3, ge=1, le=64)
    classes: int = Field(default=2, ge=1, le=255)

    @property
    def classes_out(self) -> int:
        """Channels of the output."""
        return self.classes

    @property
    def period(self) -> int:
        """The grid of the halvings repeats after this many px."""
        return int(2**DEPTH)

    @property
    def local(self) -> bool:
        """Whether a pixel of the output depends only on what is within the border around it."""
        return True

    @property
    def depends_on_size(self) -> bool:
        """Whether the output depends on the image's size."""
        return False

    @property
    def stages(self) -> tuple[int, ...]:
        """Channels after each of the four stages."""
        factor = 4 if self.bottleneck else 1
        return tuple(self.base_width * 2**stage * factor for stage in range(4))

    @property
    def skips(self) -> tuple[int, ...]:
        """Channels that are copied to the expanding path, from the bottom to the top (0 there)."""
        return (*self.stages[-2::-1], self.base_width, 0)

    def border(self) -> Border:
        """Return the context that a core needs, by following it back through the layers.

        That is 281, 513 and 277 px for ResNet-18, -34 and -50, rounded up to the period.
        """
        wanted = reach.trace_convolution((0, self.period - 1), 3, padding=1)  # the head
        copied = []
        for _ in self.expanding:
            for _ in range(2):
                wanted = reach.trace_convolution(wanted, 3, padding=1)
            copied.append(wanted)
            wanted = reach.trace_repetition(wanted)
        for stage in (3, 2, 1, 0):
            wanted = self._trace_stage(wanted, stage)
            if stage:
                wanted = reach.join(wanted, copied[1 + stage])
        wanted = reach.trace_convolution(wanted, 3, stride=2, padding=1)  # the pooling
        wanted = reach.trace_convolution(reach.join(wanted, copied[1]), 7, stride=2, padding=3)
        return reach.border_reached(wanted, self.period)

    def _trace_stage(self, wanted: reach.Interval, stage: int) -> reach.Interval:
        for block in reversed(range(self.blocks[stage])):
            stride = 2 if stage and not block else 1
            if not self.bottleneck:
                wanted = reach.trace_convolution(wanted, 3, padding=1)
            wanted = reach.trace_convolution(wanted, 3, stride=stride, padding=1)
        return wanted

    def forward_cost(self, side: int, item_bytes: int) -> ForwardCost:
        """Return the cost of a forward pass on `side` × `side` px, with `item_bytes` per number."""
        return _follow_forward(self, CostCounter(side, item_bytes))


def _follow_forward(config: ResNetUNetConfig, count: CostCounter) -> ForwardCost:
    """Follow `ResNetUNet.forward` map by map."""
    skips = [count.convolve(config.in_channels, config.base_width, 7, 2)]
    count.side //= 2
    held, channels = count.hold(config.base_width), config.base_width  # the pooling, and the
    count.spend(8 * config.base_width * count.side**2)  # positions of its maxima, in int64
    for stage, after in enumerate(config.stages):
        for block in range(config.blocks[stage]):
            stride = 2 if stage and not block else 1
            layers = _layers(config, config.base_width * 2**stage, after, stride)
            new = _follow_block(count, channels, after, layers)
            if block or not stage:  # else it is copied, and lives on
                count.drop(held)
            held, channels = new, after
        skips.append(held)
    skips.pop()
    for after, skip in zip(config.expanding, config.skips, strict=True):
        count.side *= 2
        upsampled = count.hold(channels)
        count.drop(held)
        held = upsampled
        if skip:
            held = count.hold(channels + skip)
            count.drop(upsampled + skips.pop())
        first = count.convolve(channels + skip, after, 3)
        second = count.convolve(after, after, 3)
        count.drop(held + first)
        held, channels = second, after
    count.multiply(channels, config.classes, 3)
    return count.total(held)


def _layers(
    config: ResNetUNetConfig, middle: int, after: int, stride: int
) -> list[tuple[int, int, int]]:
    """Return kernel, stride and channels of each convolution of a block."""
    if config.bottleneck:
        return [(1, 1, middle), (3, stride, middle), (1, 1, after)]
    return [(3, stride, middle), (3, 1, after)]


def _follow_block(
    count: CostCounter, channels: int, after: int, layers: list[tuple[int, int, int]]
) -> int:
    """Follow one residual block; return the bytes of its sum."""
    side, shortcut = count.side, 0
    stride = max(step for _, step, _ in layers)
    if stride > 1 or channels != after:
        shortcut = count.convolve(channels, after, 1, stride)
        count.side = side
    previous = 0
    for kernel, step, width in layers:
        new = count.convolve(channels, width, kernel, step)
        count.drop(previous)
        previous, channels = new, width
    count.drop(shortcut)
    return previous

"""A U-Net whose contracting path is a ResNet (He et al. 2016, arXiv:1512.03385, table 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsi_unet.models.architectures.resnet_unet import ResNetUNetConfig


class ResNetUNet(nn.Module):
    """A ResNet, and an expanding path that doubles its maps by repetition.

    The ResNet's maps at 1/2, 1/4, 1/8 and 1/16 of the image's size are joined to the expanding
    path, behind the maps from below. The last doubling has nothing to be joined to.

    Args:
        config: blocks, widths and classes.
    """

    def __init__(self, config: ResNetUNetConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.base_width
        self.stem = nn.Sequential(
            *_normed(config.in_channels, channels, kernel=7, stride=2), nn.ReLU(inplace=True)
        )
        self.stages = nn.ModuleList()
        for stage, after in enumerate(config.stages):
            middle = config.base_width * 2**stage
            blocks = []
            for block in range(config.blocks[stage]):
                stride = 2 if stage and not block else 1
                blocks.append(_Residual(channels, middle, after, stride, config.bottleneck))
                channels = after
            self.stages.append(nn.Sequential(*blocks))
        self.expanding = nn.ModuleList()
        for after, skip in zip(config.expanding, config.skips, strict=True):
            self.expanding.append(
                nn.Sequential(
                    *_normed(channels + skip, after, kernel=3),
                    nn.ReLU(inplace=True),
                    *_normed(after, after, kernel=3),
                    nn.ReLU(inplace=True),
                )
            )
            channels = after
        self.head = nn.Conv2d(channels, config.classes, kernel_size=3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of every class.

        Args:
            image: (n, in_channels, rows, columns), normalised as the network was trained; both
                sides multiples of 32.

        Returns:
            (n, classes, rows, columns).

        Raises:
            ValueError: the image has other sides.
        """
        if any(side % self.config.period for side in image.shape[2:]):
            raise ValueError(
                f"{tuple(image.shape[2:])} px are not multiples of {self.config.period}"
            )
        x = self.stem(image)  # 1/2
        skips = [x]
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for stage in self.stages:
            for block in stage.children():  # one by one: each frees its input
                x = block(x)  # 1/4 | 1/8 | 1/16 | 1/32
            skips.append(x)
        x = skips.pop()
        for convolutions in self.expanding:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            if skips:
                x = torch.cat([x, skips.pop()], dim=1)
            x = convolutions(x)  # 1/16 | 1/8 | 1/4 | 1/2 | 1
        logits: Tensor = self.head(x)
        return logits


class _Residual(nn.Module):
    """A residual block: the output of its convolutions, added to its input."""

    def __init__(
        self, channels: int, middle: int, after: int, stride: int, bottleneck: bool
    ) -> None:
        super().__init__()
        if bottleneck:
            layers = [
                *_normed(channels, middle, kernel=1),
                nn.ReLU(inplace=True),
                *_normed(middle, middle, kernel=3, stride=stride),
                nn.ReLU(inplace=True),
                *_normed(middle, after, kernel=1),
            ]
        else:
            layers = [
                *_normed(channels, middle, kernel=3, stride=stride),
                nn.ReLU(inplace=True),
                *_normed(middle, after, kernel=3),
            ]
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels != after:
            self.shortcut = nn.Sequential(*_normed(channels, after, kernel=1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        total = self.body(x)
        total += self.shortcut(x)
        return F.relu_(total)


def _normed(channels: int, width: int, *, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Return a convolution that divides the side by its stride, and its batch norm."""
    return [
        nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
    ]

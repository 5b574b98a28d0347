"""A U-Net of strided convolutions and residual units.

Kerfoot et al. 2019, doi:10.1007/978-3-030-12029-0_40.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_unet.models.architectures.fields import norm_groups
from wsi_unet.models.architectures.residual_unet import ResidualUNetConfig
from wsi_unet.models.networks.group_norm import GroupNorm


class ResidualUNet(nn.Module):
    """Residual units that halve the image, and transposed convolutions that double it again.

    On the way down, the first convolution of each level has stride 2; the bottom level's has not.
    On the way up, each level's own result is joined to the map from below, and doubled.

    Args:
        config: widths, units, normalisation and activation.
    """

    def __init__(self, config: ResidualUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.contracting = nn.ModuleList()
        channels = config.in_channels
        for level, width in enumerate(config.channels):
            stride = 1 if level == config.depth else 2
            self.contracting.append(_Unit(channels, width, stride, config))
            channels = width
        self.expanding = nn.ModuleList()
        for stage, (before, after) in enumerate(config.upwards):
            top = stage == config.depth - 1
            layers: list[nn.Module] = [
                nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
            ]
            if not (top and config.units == 0):
                layers += _normed_and_activated(after, config)
            stages: list[nn.Module] = [nn.Sequential(*layers)]
            if config.units:
                stages.append(_Unit(after, after, 1, config, units=1, bare=top))
            self.expanding.append(nn.Sequential(*stages))

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of every class.

        Args:
            image: (n, in_channels, rows, columns), normalised as the network was trained; both
                sides multiples of the period.

        Returns:
            (n, classes, rows, columns).

        Raises:
            ValueError: the image has other sides.
        """
        if any(side % self.config.period for side in image.shape[2:]):
            raise ValueError(
                f"{tuple(image.shape[2:])} px are not multiples of {self.config.period}"
            )
        x: Tensor = image
        skips = []
        for unit in self.contracting:
            x = unit(x)  # 1/2 | 1/4 | … | the last as the one before
            skips.append(x)
        x = skips.pop()
        for stage in self.expanding:
            x = torch.cat([skips.pop(), x], dim=1)
            for layer in stage.children():  # one by one: each frees its input
                x = layer(x)
        return x


class _Unit(nn.Module):
    """Convolutions, the first of which may halve the map, and a shortcut around them.

    Args:
        channels: channels of the input.
        width: channels of the output.
        stride: stride of the first convolution.
        config: the network's architecture.
        units: number of convolutions; None: `config.units`.
        bare: whether the last convolution has neither normalisation nor activation.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        config: ResidualUNetConfig,
        *,
        units: int | None = None,
        bare: bool = False,
    ) -> None:
        super().__init__()
        units = config.units if units is None else units
        layers: list[nn.Module] = []
        for index in range(max(1, units)):
            before, step = (width, 1) if index else (channels, stride)
            layers.append(nn.Conv2d(before, width, 3, stride=step, padding=1))
            if not (bare and index == units - 1):
                layers += _normed_and_activated(width, config)
        self.body = nn.Sequential(*layers)
        self.shortcut: nn.Module | None = None
        if units:
            self.shortcut = nn.Identity()
            if stride > 1:
                self.shortcut = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
            elif channels != width:
                self.shortcut = nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.body(x)
        if self.shortcut is not None:
            total += self.shortcut(x)
        return total


def _normed_and_activated(width: int, config: ResidualUNetConfig) -> list[nn.Module]:
    norm: nn.Module = nn.Identity()
    groups = norm_groups(config.norm)
    if groups is not None:
        norm = GroupNorm(groups, width, affine=config.affine)
    elif config.norm == "batch":
        norm = nn.BatchNorm2d(width)
    elif config.norm == "instance":
        norm = nn.InstanceNorm2d(width, affine=config.affine)
    if config.negative_slope is None:
        return [norm, nn.PReLU()]
    return [
        norm,
        nn.LeakyReLU(config.negative_slope, inplace=True)
        if config.negative_slope
        else nn.ReLU(inplace=True),
    ]

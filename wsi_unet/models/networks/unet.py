"""The U-Net of Ronneberger, Fischer and Brox (MICCAI 2015, arXiv:1505.04597), figure 1.

Shapes in the comments are those of the paper's own network (one grey channel, 572×572 in,
388×388 out), written as (channels, rows, columns).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsi_unet.models.architectures.fields import norm_groups
from wsi_unet.models.architectures.unet import UNetConfig, check_side
from wsi_unet.models.networks.group_norm import GroupNorm
from wsi_unet.models.networks.interpolation import Placement, interpolate


class UNet(nn.Module):
    """A contracting and an expanding path, joined level by level by skip connections.

    Args:
        config: padding, depth, widths and everything else.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        layout = config.layout
        self.contracting = nn.ModuleList()
        channels = config.in_channels
        for width in layout.contracting:
            self.contracting.append(_convolutions(channels, (width,) * config.convolutions, config))
            channels = width
        self.dropout = nn.Dropout(config.dropout)
        self.activation = _activation(config)
        self.upsampling = nn.ModuleList()
        self.expanding = nn.ModuleList()
        for level, widths in enumerate(layout.expanding):
            skip = layout.contracting[-2 - level]
            width = channels if layout.upsampled is None else layout.upsampled[level]
            self.upsampling.append(_upsampling(channels, width, config))
            self.expanding.append(_convolutions(skip + width, widths, config))
            channels = widths[-1]
        self.head = nn.Conv2d(channels, config.classes, kernel_size=1)
        self.apply(_initialise)

    def forward(self, image: Tensor, placement: Placement | None = None) -> Tensor:
        """Return the logits of every class.

        Args:
            image: (n, in_channels, rows, columns), normalised as the network was trained.
            placement: where the image lies in a larger one, so that interpolation that depends on
                the size (`align_corners`) uses that of the larger one; None: it is the whole.

        Returns:
            (n, classes, rows − 2s, columns − 2s), where s is `config.border().shrink`.

        Raises:
            ValueError: the network's pooling grid doesn't fit the image's size.
        """
        for side in image.shape[2:]:
            check_side(self.config, side)
        x = image  # 1, 572, 572
        skips = []
        for level, convolutions in enumerate(self.contracting):
            x = convolutions(x)  # 64, 568, 568 | 128, 280, 280 | … | 1024, 28, 28
            if level < self.config.depth:
                skips.append(x)
                x = F.max_pool2d(x, 2)  # 64, 284, 284 | 128, 140, 140 | … | 512, 32, 32
        x = self.dropout(x)
        for upsampling, convolutions in zip(self.upsampling, self.expanding, strict=True):
            x = upsampling(x)
            if self.config.upsampling == "bilinear":
                at_level = placement and placement.at_level(len(skips))
                x = interpolate(x, self.config.align_corners, at_level)
            if self.config.activated_upsampling:
                x = self.activation(x)
            # 512, 56, 56 | 256, 104, 104 | … | 64, 392, 392
            x = self._join(skips.pop(), x)  # 1024, 56, 56 | … | 128, 392, 392
            x = convolutions(x)  # 512, 52, 52 | 256, 100, 100 | … | 64, 388, 388
        logits: Tensor = self.head(x)  # 2, 388, 388
        return logits

    def _join(self, skip: Tensor, x: Tensor) -> Tensor:
        """Concatenate both, the skip cropped to `x`; where sides may be odd, `x` padded to it."""
        if self.config.odd != "none":
            rows, columns = (a - b for a, b in zip(skip.shape[2:], x.shape[2:], strict=True))
            if rows or columns:
                mode = "replicate" if self.config.odd == "replicate" else "constant"
                x = F.pad(x, (0, columns, 0, rows), mode)
        return torch.cat([_crop(skip, x), x], dim=1)


def _convolutions(channels: int, widths: tuple[int, ...], config: UNetConfig) -> nn.Sequential:
    """Return one level: k times a 3×3 convolution, its activation and perhaps a norm."""
    layers: list[nn.Module] = []
    padding = 0 if config.padding == "valid" else 1
    for width in widths:
        # The shift of the normalisation makes the bias redundant, unless it mixes channels.
        bias = config.norm not in {"batch", "instance"} or not config.norm_first
        layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=padding, bias=bias))
        after = [_activation(config)]
        if config.norm != "none":
            after.insert(0 if config.norm_first else 1, _norm(width, config))
        layers += after
        channels = width
    return nn.Sequential(*layers)


def _activation(config: UNetConfig) -> nn.Module:
    return (
        nn.LeakyReLU(config.negative_slope, inplace=True)
        if config.negative_slope
        else nn.ReLU(inplace=True)
    )


def _norm(width: int, config: UNetConfig) -> nn.Module:
    if config.norm == "batch":
        return nn.BatchNorm2d(width)
    groups = norm_groups(config.norm)
    if groups is not None:
        return GroupNorm(groups, width)
    return nn.InstanceNorm2d(width, affine=True)


def _upsampling(channels: int, width: int, config: UNetConfig) -> nn.Module:
    """Return the layer from `channels` to `width`; only a transposed one doubles the map, too."""
    if config.upsampling == "transpose":
        return nn.ConvTranspose2d(channels, width, kernel_size=2, stride=2)
    if config.layout.upsampled is None:
        return nn.Identity()
    # A 1×1 convolution and an interpolation (whose weights sum to one) commute, so this is the
    # usual "interpolate, then convolve" at a quarter of the multiplications.
    return nn.Conv2d(channels, width, kernel_size=1)


def _crop(skip: Tensor, like: Tensor) -> Tensor:
    """Return the middle of `skip`, as large as `like`."""
    rows, columns = like.shape[2:]
    top, left = (skip.shape[2] - rows) // 2, (skip.shape[3] - columns) // 2
    return skip[:, :, top : top + rows, left : left + columns]


def _initialise(module: nn.Module) -> None:
    """Draw weights from a Gaussian of deviation √(2/N); N is a neuron's inputs (He et al. 2015)."""
    if isinstance(module, nn.Conv2d):
        inputs = module.weight[0].numel()  # weight: out, in, rows, columns
    elif isinstance(module, nn.ConvTranspose2d):
        inputs = module.in_channels  # stride = kernel: each output pixel has one input pixel
    else:
        return
    if module.weight.is_meta:  # nothing to draw; torch would import its compiler for it
        return
    nn.init.normal_(module.weight, std=(2.0 / inputs) ** 0.5)
    if module.bias is not None:
        nn.init.zeros_(module.bias)

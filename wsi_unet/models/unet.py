"""The U-Net of Ronneberger, Fischer and Brox (MICCAI 2015, arXiv:1505.04597), figure 1.

Shapes in the comments are those of the paper's own network (one grey channel, 572×572 in,
388×388 out), written as (channels, rows, columns).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsi_unet.models.border import check_side
from wsi_unet.models.config import UNetConfig


class UNet(nn.Module):
    """A contracting and an expanding path, joined level by level by copies.

    Args:
        config: padding, depth, widths and the rest.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        *widths, bottom = config.widths
        self.contracting = nn.ModuleList()
        channels = config.in_channels
        for width in (*widths, bottom):
            self.contracting.append(_convolutions(channels, width, config))
            channels = width
        self.dropout = nn.Dropout(config.dropout)
        self.upsampling = nn.ModuleList()
        self.expanding = nn.ModuleList()
        for width in reversed(widths):
            self.upsampling.append(_upsampling(2 * width, width, config))
            self.expanding.append(_convolutions(2 * width, width, config))
        self.head = nn.Conv2d(config.base_width, config.classes, kernel_size=1)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of every class.

        Args:
            image: (n, in_channels, rows, columns), scaled as the network was trained.

        Returns:
            (n, classes, rows − 2s, columns − 2s), where s is `derive_border(config).shrink`.

        Raises:
            ValueError: if the network's pooling grid doesn't fit the image's size.
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
            x = upsampling(x)  # 512, 56, 56 | 256, 104, 104 | … | 64, 392, 392
            x = torch.cat([_crop(skips.pop(), x), x], dim=1)  # 1024, 56, 56 | … | 128, 392, 392
            x = convolutions(x)  # 512, 52, 52 | 256, 100, 100 | … | 64, 388, 388
        logits: Tensor = self.head(x)  # 2, 388, 388
        return logits


def _convolutions(channels: int, width: int, config: UNetConfig) -> nn.Sequential:
    """One level: k times a 3×3 convolution and ReLU, with batch norm between them if wanted."""
    layers: list[nn.Module] = []
    padding = 0 if config.padding == "valid" else 1
    for _ in range(config.convolutions):
        bias = not config.batch_norm  # batch norm's own shift would make it redundant
        layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=padding, bias=bias))
        if config.batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU(inplace=True))
        channels = width
    return nn.Sequential(*layers)


def _upsampling(channels: int, width: int, config: UNetConfig) -> nn.Module:
    """Twice the rows and columns, half the channels."""
    if config.upsampling == "transpose":
        return nn.ConvTranspose2d(channels, width, kernel_size=2, stride=2)
    # A 1×1 convolution and an interpolation (whose weights sum to one) commute, so this is the
    # usual "interpolate, then convolve" at a quarter of the multiplications.
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel_size=1),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
    )


def _crop(skip: Tensor, like: Tensor) -> Tensor:
    """The middle of `skip`, as large as `like`."""
    rows, columns = like.shape[2:]
    top, left = (skip.shape[2] - rows) // 2, (skip.shape[3] - columns) // 2
    return skip[:, :, top : top + rows, left : left + columns]


def _initialise(module: nn.Module) -> None:
    """Draw weights from a Gaussian of deviation √(2/N), N the inputs of one neuron (He 2015)."""
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

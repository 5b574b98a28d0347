"""Other people's networks, written here from their documentation, to test imports against.

Nothing here uses the package. Module names are those of the checkpoints, and each forward pass is
that of its family.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network weights that keep signals alive, and norms that do something."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            inputs = module.in_channels
            if isinstance(module, nn.Conv2d):
                inputs = module.weight[0].numel()
            nn.init.normal_(module.weight, std=(2.0 / inputs) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0.05, 0.4)
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            module.running_mean = torch.randn(module.num_features) * 0.3
            module.running_var = torch.rand(module.num_features) + 0.5
    return network.eval()


def with_norm(make: Callable[[], nn.Module], norm: str) -> nn.Module:
    """Return a network whose batch norms are replaced by ones without running statistics."""

    def replacement(channels: int) -> nn.Module:
        if norm == "instance":
            return nn.InstanceNorm2d(channels, affine=True)
        if norm == "batch":
            return nn.BatchNorm2d(channels, track_running_stats=False)
        return nn.GroupNorm(int(norm.removeprefix("group:")), channels)

    network = make()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                parent.add_module(name, replacement(child.num_features))
    return network


def pair(before: int, middle: int, after: int, bias: bool = False) -> nn.Sequential:
    """Return twice convolution, batch norm and ReLU, numbered 0 to 5."""
    layers: list[nn.Module] = []
    for channels, width in ((before, middle), (middle, after)):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width)]
        layers += [nn.ReLU()]
    return nn.Sequential(*layers)


def named(**modules: nn.Module) -> nn.Module:
    """Return a module that only holds others."""
    return nn.ModuleDict(modules)


class Milesial(nn.Module):
    """milesial/Pytorch-UNet: same padding, batch norm, padding of odd sides, aligned corners."""

    def __init__(
        self, channels: int, classes: int, base: int, *, bilinear: bool, bias: bool = False
    ) -> None:
        super().__init__()
        self.bilinear = bilinear
        factor = 2 if bilinear else 1
        widths = [base, 2 * base, 4 * base, 8 * base, 16 * base // factor]
        self.inc = named(double_conv=pair(channels, base, base, bias))
        for level in range(1, 5):
            convs = pair(widths[level - 1], widths[level], widths[level], bias)
            pooled = nn.Sequential(nn.MaxPool2d(2), named(double_conv=convs))
            self.add_module(f"down{level}", named(maxpool_conv=pooled))
        for stage in range(1, 5):
            joined = 2 * base * 2 ** (4 - stage)  # channels after joining
            after = joined // 2 // (factor if stage < 4 else 1)
            middle = joined // 2
            parts = {"conv": named(double_conv=pair(joined, middle, after, bias))}
            if not bilinear:
                parts["up"] = nn.ConvTranspose2d(joined, joined // 2, 2, stride=2)
            self.add_module(f"up{stage}", named(**parts))
        self.outc = named(conv=nn.Conv2d(base, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.get_submodule("inc.double_conv")(x)]
        for level in range(1, 5):
            pooled = F.max_pool2d(skips[-1], 2)
            skips.append(self.get_submodule(f"down{level}.maxpool_conv.1.double_conv")(pooled))
        x = skips.pop()
        for stage in range(1, 5):
            skip = skips.pop()
            if self.bilinear:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            else:
                x = self.get_submodule(f"up{stage}.up")(x)
            rows, columns = (a - b for a, b in zip(skip.shape[2:], x.shape[2:], strict=True))
            x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
            x = self.get_submodule(f"up{stage}.conv.double_conv")(torch.cat([skip, x], dim=1))
        logits: Tensor = self.get_submodule("outc.conv")(x)
        return logits


class Milesial2018(nn.Module):
    """The same of 2018: other keys, no halving in the first stage's channels, sigmoid outside."""

    def __init__(self, channels: int, classes: int, base: int, *, bilinear: bool) -> None:
        super().__init__()
        self.bilinear = bilinear
        widths = [base, 2 * base, 4 * base, 8 * base, 8 * base]
        self.inc = named(conv=named(conv=pair(channels, base, base, True)))
        for level in range(1, 5):
            convs = pair(widths[level - 1], widths[level], widths[level], True)
            self.add_module(
                f"down{level}", named(mpconv=nn.Sequential(nn.MaxPool2d(2), named(conv=convs)))
            )
        before = widths[4]
        for stage, after in enumerate((4 * base, 2 * base, base, base), start=1):
            skip = widths[4 - stage]
            parts: dict[str, nn.Module] = {
                "conv": named(conv=pair(before + skip, after, after, True))
            }
            if not bilinear:
                parts["up"] = nn.ConvTranspose2d(before, before, 2, stride=2)
            self.add_module(f"up{stage}", named(**parts))
            before = after
        self.outc = named(conv=nn.Conv2d(base, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.get_submodule("inc.conv.conv")(x)]
        for level in range(1, 5):
            pooled = F.max_pool2d(skips[-1], 2)
            skips.append(self.get_submodule(f"down{level}.mpconv.1.conv")(pooled))
        x = skips.pop()
        for stage in range(1, 5):
            skip = skips.pop()
            if self.bilinear:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            else:
                x = self.get_submodule(f"up{stage}.up")(x)
            rows, columns = (a - b for a, b in zip(skip.shape[2:], x.shape[2:], strict=True))
            x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
            x = self.get_submodule(f"up{stage}.conv.conv")(torch.cat([skip, x], dim=1))
        logits: Tensor = self.get_submodule("outc.conv")(x)
        return logits


class ConvolvedUpsampling(nn.Module):
    """A U-Net whose maps are doubled with aligned corners, then convolved (1×1) and activated.

    Drop-out on the two deepest levels, batch norm, a sigmoid at the end. The names of its double
    convolutions are those of milesial/Pytorch-UNet, of 2018 or (`late`) of today.
    """

    def __init__(self, channels: int, classes: int, base: int, *, late: bool) -> None:
        super().__init__()
        self.late = late
        widths = [base * 2**level for level in range(5)]
        self.inc = self._double(channels, base)
        for level in range(1, 5):
            pooled = nn.Sequential(nn.MaxPool2d(2), self._double(widths[level - 1], widths[level]))
            if not late:
                pooled[1] = pooled[1].get_submodule("conv")
            name = "maxpool_conv" if late else "mpconv"
            self.add_module(f"down{level}", named(**{name: pooled}))
        self.drop3, self.drop4 = nn.Dropout2d(0.5), nn.Dropout2d(0.5)
        for stage in range(1, 5):
            before, after = widths[5 - stage], widths[4 - stage]
            up = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
                nn.Conv2d(before, after, 1),
                nn.ReLU(),
            )
            double = self._double(before, after)
            conv = double if late else double.get_submodule("conv")
            self.add_module(f"up{stage}", named(up=up, conv=conv))
        self.outc = named(conv=nn.Conv2d(base, classes, 1))

    def _double(self, before: int, after: int) -> nn.Module:
        convolutions = pair(before, after, after, True)
        if self.late:
            return named(double_conv=convolutions)
        return named(conv=named(conv=convolutions))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        double = "double_conv" if self.late else "conv"
        first = "inc.double_conv" if self.late else "inc.conv.conv"
        pooled = "maxpool_conv" if self.late else "mpconv"
        skips = [self.get_submodule(first)(x)]
        for level in range(1, 5):
            x = F.max_pool2d(skips[-1], 2)
            x = self.get_submodule(f"down{level}.{pooled}.1.{double}")(x)
            skips.append({3: self.drop3, 4: self.drop4}.get(level, nn.Identity())(x))
        x = skips.pop()
        for stage in range(1, 5):
            skip = skips.pop()
            x = self.get_submodule(f"up{stage}.up")(x)
            rows, columns = (a - b for a, b in zip(skip.shape[2:], x.shape[2:], strict=True))
            x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
            x = self.get_submodule(f"up{stage}.conv.{double}")(torch.cat([skip, x], dim=1))
        logits: Tensor = self.get_submodule("outc.conv")(x)
        return logits


class JvanVugt(nn.Module):
    """jvanvugt/pytorch-unet: padding or not, batch norm after the ReLU, the copy joined last."""

    def __init__(
        self,
        channels: int,
        classes: int,
        base: int,
        *,
        depth: int = 3,
        padding: bool,
        norm: bool,
        upsample: bool,
    ) -> None:
        super().__init__()

        def block(before: int, after: int) -> nn.Module:
            layers: list[nn.Module] = []
            for width in (before, after):
                layers += [nn.Conv2d(width, after, 3, padding=int(padding)), nn.ReLU()]
                layers += [nn.BatchNorm2d(after)] if norm else []
            return named(block=nn.Sequential(*layers))

        self.upsample = upsample
        widths = [base * 2**level for level in range(depth + 1)]
        self.down_path = nn.ModuleList(
            block(before, after) for before, after in zip([channels, *widths], widths, strict=False)
        )
        self.up_path = nn.ModuleList()
        for before, after in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up: nn.Module = nn.ConvTranspose2d(before, after, 2, stride=2)
            if upsample:
                up = nn.Sequential(
                    nn.Upsample(mode="bilinear", scale_factor=2), nn.Conv2d(before, after, 1)
                )
            self.up_path.append(named(up=up, conv_block=block(before, after)))
        self.last = nn.Conv2d(base, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down_path:
            skips.append(down.get_submodule("block")(x))
            x = F.max_pool2d(skips[-1], 2)
        x = skips.pop()
        for up in self.up_path:
            skip = skips.pop()
            x = up.get_submodule("up")(x)
            rows, columns = x.shape[2:]
            top, left = (skip.shape[2] - rows) // 2, (skip.shape[3] - columns) // 2
            cropped = skip[:, :, top : top + rows, left : left + columns]
            x = up.get_submodule("conv_block.block")(torch.cat([x, cropped], dim=1))
        logits: Tensor = self.last(x)
        return logits


class MateuszBuda(nn.Module):
    """mateuszbuda/brain-segmentation-pytorch; its forward ends in a sigmoid."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()

        def block(before: int, after: int, name: str) -> nn.Module:
            layers = []
            for index, width in enumerate((before, after), start=1):
                layers += [
                    (f"{name}conv{index}", nn.Conv2d(width, after, 3, padding=1, bias=False)),
                    (f"{name}norm{index}", nn.BatchNorm2d(after)),
                    (f"{name}relu{index}", nn.ReLU()),
                ]
            return nn.Sequential(OrderedDict(layers))

        for level in range(1, 5):
            before = channels if level == 1 else base * 2 ** (level - 2)
            width = base * 2 ** (level - 1)
            self.add_module(f"encoder{level}", block(before, width, f"enc{level}"))
            self.add_module(f"upconv{level}", nn.ConvTranspose2d(2 * width, width, 2, stride=2))
            self.add_module(f"decoder{level}", block(2 * width, width, f"dec{level}"))
        self.bottleneck = block(8 * base, 16 * base, "bottleneck")
        self.conv = nn.Conv2d(base, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        skips = []
        for level in range(1, 5):
            skips.append(self.get_submodule(f"encoder{level}")(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottleneck(x)
        for level in range(4, 0, -1):
            x = torch.cat([self.get_submodule(f"upconv{level}")(x), skips.pop()], dim=1)
            x = self.get_submodule(f"decoder{level}")(x)
        logits: Tensor = self.conv(x)
        return logits

"""The layouts of networks with residual units: torchvision's ResNets, and MONAI's UNet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from wsi_unet.models.architectures.residual_unet import ResidualUNetConfig
from wsi_unet.models.architectures.resnet_unet import ResNetUNetConfig
from wsi_unet.models.importing.families.layout import (
    WEIGHTED_NORM,
    Layer,
    LayerKind,
    Layout,
    NeededHint,
    ShapeHints,
    Shapes,
    Tensors,
    has_weighted_norm,
)

if TYPE_CHECKING:
    from torch import Tensor

    from wsi_unet.models.spec import Architecture


@dataclass(frozen=True)
class ResNetUNetLayout(Layout):
    """How a family names the layers of a ResNet and of its expanding path.

    Names are templates over `stage` (from the bottom of the expanding path), `block` and, counted
    from 1, `stage1` (from the top of the ResNet) and `conv1`.

    Attributes:
        stem: name of the first convolution.
        stem_norm: name of its batch norm.
        block: name of a residual block.
        convolution: name of a convolution, appended to its block's.
        norm: name of a batch norm, appended to its block's.
        shortcut: names of the convolution and the batch norm that bring a block's input to the
            channels of its output, appended to the block's.
        expanding: names of a convolution of the expanding path and of its batch norm.
        head: name of the last convolution.
    """

    stem: str
    stem_norm: str
    block: str
    convolution: str
    norm: str
    shortcut: tuple[str, str]
    expanding: tuple[str, str]
    head: str

    @override
    def layers(self, tensors: Tensors) -> Sequence[Layer]:
        if f"{self.stem}.weight" not in tensors:
            return ()
        layers = [
            Layer("stem.0", self.stem, "convolution"),
            Layer("stem.1", self.stem_norm, "batch norm"),
        ]
        for stage in range(4):
            block = 0
            while (found := list(self._block(tensors, stage, block))) or block == 0:
                layers += found
                block += 1
        for stage in range(5):
            for index in range(2):
                names = [
                    template.format(stage=stage, conv1=index + 1) for template in self.expanding
                ]
                ours = f"expanding.{stage}."
                layers.append(Layer(f"{ours}{3 * index}", names[0], "convolution"))
                layers.append(Layer(f"{ours}{3 * index + 1}", names[1], "batch norm"))
        return [*layers, Layer("head", self.head, "head")]

    def _block(self, tensors: Tensors, stage: int, block: int) -> Iterator[Layer]:
        """Yield the layers of one block; none if there is no such block."""
        theirs = self.block.format(stage1=stage + 1, block=block)
        ours = f"stages.{stage}.{block}"
        for index in range(3):
            name = theirs + self.convolution.format(conv1=index + 1)
            if f"{name}.weight" in tensors:
                yield Layer(f"{ours}.body.{3 * index}", name, "convolution")
                norm = theirs + self.norm.format(conv1=index + 1)
                yield Layer(f"{ours}.body.{3 * index + 1}", norm, "batch norm")
        convolution, norm = (theirs + name for name in self.shortcut)
        if f"{convolution}.weight" in tensors:
            yield Layer(f"{ours}.shortcut.0", convolution, "convolution")
            yield Layer(f"{ours}.shortcut.1", norm, "batch norm")

    @override
    def needed_hints(self, layers: Sequence[Layer]) -> tuple[NeededHint, ...]:
        return ()

    @override
    def accepted_hints(self, layers: Sequence[Layer]) -> frozenset[str]:
        return frozenset()

    @override
    def config(self, shapes: Shapes, hints: ShapeHints) -> ResNetUNetConfig:
        blocks = tuple(
            sum(f"stages.{stage}.{block}.body.0.weight" in shapes for block in range(64))
            for stage in range(4)
        )
        return ResNetUNetConfig.model_validate(
            {
                "blocks": blocks,
                "bottleneck": "stages.0.0.body.6.weight" in shapes,
                "base_width": shapes["stem.0.weight"][0],
                "expanding": tuple(shapes[f"expanding.{stage}.3.weight"][0] for stage in range(5)),
                "in_channels": shapes["stem.0.weight"][1],
                "classes": shapes["head.weight"][0],
            }
        )

    @override
    def arrange(self, state: dict[str, Tensor], config: Architecture) -> None:
        """Leave everything as it is: our network joins its maps as this family does."""


@dataclass(frozen=True)
class ResidualUNetLayout(Layout):
    """How a family names strided convolutions, with or without residual units.

    The module of each level holds that of the level below.

    Attributes:
        level: what each level adds in front of all names below it.
        down: name of a level's way down, appended to the levels above.
        up: name of a level's way up, appended to the levels above.
        convolution: name of a convolution, appended to one of these.
        norm: name of its normalisation, appended to one of these.
        activation: name of its activation, appended to one of these.
        unit: what stands in front of these three where there are residual units.
        shortcut: name of a unit's shortcut.
        units: whether there are residual units.
    """

    level: str
    down: str
    up: str
    convolution: str
    norm: str
    activation: str
    unit: str
    shortcut: str
    units: bool

    @override
    def layers(self, tensors: Tensors) -> Sequence[Layer]:
        first = self.unit.format(unit=0) if self.units else ""
        depth = 0
        while f"{self._down(depth, depth + 1)}{first}{self.convolution}.weight" in tensors:
            depth += 1
        if not depth:
            return ()
        layers: list[Layer] = []
        for level in range(depth + 1):
            layers += self._unit(tensors, f"contracting.{level}", self._down(level, depth))
        for stage in range(depth):
            theirs, ours = self.level * (depth - 1 - stage) + self.up, f"expanding.{stage}"
            if self.units:
                layers += self._layers(tensors, f"{ours}.0.", theirs + "0.", 0)
                layers += self._unit(tensors, f"{ours}.1", theirs + "1.")
            else:
                layers += self._layers(tensors, f"{ours}.0.", theirs, 0)
        return layers

    def _down(self, level: int, depth: int) -> str:
        return self.level * level + ("" if level == depth else self.down)

    def _unit(self, tensors: Tensors, ours: str, theirs: str) -> Iterator[Layer]:
        if not self.units:
            yield from self._layers(tensors, f"{ours}.body.", theirs, 0)
            return
        for index in range(8):
            name = theirs + self.unit.format(unit=index)
            if index and f"{name}{self.convolution}.weight" not in tensors:
                break
            # A normalisation without weights has an index too.
            yield from self._layers(tensors, f"{ours}.body.", name, 3 * index)
        if f"{theirs}{self.shortcut}.weight" in tensors:
            yield Layer(f"{ours}.shortcut", theirs + self.shortcut, "convolution")

    def _layers(self, tensors: Tensors, ours: str, theirs: str, slot: int) -> Iterator[Layer]:
        """Yield a convolution, its normalisation and its activation, of those that have keys."""
        yield Layer(f"{ours}{slot}", theirs + self.convolution, "convolution")
        norm, activation = theirs + self.norm, theirs + self.activation
        if f"{norm}.weight" in tensors:
            kind: LayerKind = "batch norm" if f"{norm}.running_mean" in tensors else "affine norm"
            yield Layer(f"{ours}{slot + 1}", norm, kind)
        if f"{activation}.weight" in tensors:
            yield Layer(f"{ours}{slot + 2}", activation, "activation")

    @override
    def needed_hints(self, layers: Sequence[Layer]) -> tuple[NeededHint, ...]:
        """Return the activation, if it has no weights, and the norm, if weights don't tell."""
        norm = (WEIGHTED_NORM,) if has_weighted_norm(layers) else ()
        if any(layer.kind == "activation" for layer in layers):
            return norm
        return (NeededHint("activation", ("relu", "leaky-relu[=SLOPE]")), *norm)

    @override
    def accepted_hints(self, layers: Sequence[Layer]) -> frozenset[str]:
        """Return the activation and the norm, where they have no weights."""
        accepted = {hint.option for hint in self.needed_hints(layers)}
        if not {layer.kind for layer in layers} & {"batch norm", "affine norm"}:
            accepted.add("norm")
        return frozenset(accepted)

    @override
    def config(self, shapes: Shapes, hints: ShapeHints) -> ResidualUNetConfig:
        depth = sum(f"contracting.{level}.body.0.weight" in shapes for level in range(8)) - 1
        units = sum(f"contracting.0.body.{3 * unit}.weight" in shapes for unit in range(8))
        for level in range(depth) if self.units else ():
            if shapes[f"contracting.{level}.shortcut.weight"][2:] != (3, 3):
                raise ValueError(f"level {level} doesn't halve the image")
        last = f"expanding.{depth - 1}.{'1.body.0' if self.units else '0.0'}.weight"
        moving = any(name.endswith("running_mean") for name in shapes)
        return ResidualUNetConfig.model_validate(
            {
                "channels": tuple(
                    shapes[f"contracting.{level}.body.0.weight"][0] for level in range(depth + 1)
                ),
                "units": units if self.units else 0,
                "in_channels": shapes["contracting.0.body.0.weight"][1],
                "classes": shapes[last][0 if self.units else 1],
                "norm": "batch" if moving else hints.config_norm or "instance",
                "affine": not moving and "contracting.0.body.1.weight" in shapes,
                "negative_slope": hints.negative_slope,
            }
        )

    @override
    def arrange(self, state: dict[str, Tensor], config: Architecture) -> None:
        """Leave everything as it is: our network joins its maps as this family does."""

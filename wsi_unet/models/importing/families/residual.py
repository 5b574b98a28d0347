"""The layouts of networks with residual units: torchvision's ResNets, and MONAI's UNet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsi_unet.models.architectures.residual_unet import ResidualUNetConfig
from wsi_unet.models.architectures.resnet_unet import ResNetUNetConfig
from wsi_unet.models.importing.families.layout import (
    Kind,
    Layer,
    NeededHint,
    ShapeHints,
    Shapes,
    Tensors,
)

if TYPE_CHECKING:
    from torch import Tensor

    from wsi_unet.models.spec import Architecture


@dataclass(frozen=True)
class ResNetUNetLayout:
    """A ResNet with its usual names, and an expanding path.

    Names are templates over `stage` (from the top of the ResNet, or the bottom of the expanding
    path), `stage1`, `block` and `conv1`, counted from 1.

    Attributes:
        stem: the first convolution.
        stem_norm: its batch norm.
        block: one residual block.
        convolution: a convolution of it, after its name.
        norm: that one's batch norm.
        shortcut: what brings its input to the sum's channels; a convolution and a batch norm.
        expanding: a convolution of the expanding path and its batch norm.
        head: the last convolution.
    """

    stem: str
    stem_norm: str
    block: str
    convolution: str
    norm: str
    shortcut: tuple[str, str]
    expanding: tuple[str, str]
    head: str

    def parts(self, tensors: Tensors) -> Sequence[Layer]:
        """List the parts of a network with as many blocks as the checkpoint's keys suggest."""
        if f"{self.stem}.weight" not in tensors:
            return ()
        parts = [
            Layer("stem.0", self.stem, "convolution"),
            Layer("stem.1", self.stem_norm, "batch norm"),
        ]
        for stage in range(4):
            block = 0
            while (part := list(self._block(tensors, stage, block))) or block == 0:
                parts += part
                block += 1
        for stage in range(5):
            for index in range(2):
                names = [
                    template.format(stage=stage, conv1=index + 1) for template in self.expanding
                ]
                ours = f"expanding.{stage}."
                parts.append(Layer(f"{ours}{3 * index}", names[0], "convolution"))
                parts.append(Layer(f"{ours}{3 * index + 1}", names[1], "batch norm"))
        return [*parts, Layer("head", self.head, "head")]

    def _block(self, tensors: Tensors, stage: int, block: int) -> Iterator[Layer]:
        """List the parts of one block; nothing if there is none."""
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

    def questions(self, parts: Sequence[Layer]) -> tuple[NeededHint, ...]:
        """Return what must be told besides: nothing."""
        return ()

    def options(self, parts: Sequence[Layer]) -> frozenset[str]:
        """Return what may be told: nothing."""
        return frozenset()

    def config(self, shapes: Shapes, answers: ShapeHints) -> ResNetUNetConfig:
        """Infer the network's shape."""
        blocks = tuple(
            sum(f"stages.{stage}.{block}.body.0.weight" in shapes for block in range(64))
            for stage in range(4)
        )
        return ResNetUNetConfig.model_validate(
            {
                "blocks": blocks,
                "bottleneck": "stages.0.0.body.6.weight" in shapes,
                "base_width": shapes["stem.0.weight"][0],
                "expanding": tuple(shapes[f"expanding.{n}.3.weight"][0] for n in range(5)),
                "in_channels": shapes["stem.0.weight"][1],
                "classes": shapes["head.weight"][0],
            }
        )

    def arrange(self, state: dict[str, Tensor], config: Architecture) -> None:
        """Leave everything as it is: the network joins its maps as this family does."""


@dataclass(frozen=True)
class ResidualUNetLayout:
    """Strided convolutions with or without residual units, each level inside the one above.

    Attributes:
        level: what each level adds to the names of all that is below it.
        down: a level's way down, after the names of the levels above.
        up: its way up.
        convolution: a convolution, after one of those.
        norm: its normalisation.
        activation: its activation.
        unit: what comes before those names where there are residual units.
        shortcut: a unit's shortcut.
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

    def parts(self, tensors: Tensors) -> Sequence[Layer]:
        """List the parts of a network as deep as the checkpoint's keys suggest."""
        first = self.unit.format(unit=0) if self.units else ""
        depth = 0
        while f"{self._down(depth, depth + 1)}{first}{self.convolution}.weight" in tensors:
            depth += 1
        if not depth:
            return ()
        parts: list[Layer] = []
        for level in range(depth + 1):
            parts += self._unit(tensors, f"contracting.{level}", self._down(level, depth))
        for stage in range(depth):
            theirs, ours = self.level * (depth - 1 - stage) + self.up, f"expanding.{stage}"
            if self.units:
                parts += self._layers(tensors, f"{ours}.0.", theirs + "0.", 0)
                parts += self._unit(tensors, f"{ours}.1", theirs + "1.")
            else:
                parts += self._layers(tensors, f"{ours}.0.", theirs, 0)
        return parts

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
            # A normalisation without weights has its place too.
            yield from self._layers(tensors, f"{ours}.body.", name, 3 * index)
        if f"{theirs}{self.shortcut}.weight" in tensors:
            yield Layer(f"{ours}.shortcut", theirs + self.shortcut, "convolution")

    def _layers(self, tensors: Tensors, ours: str, theirs: str, place: int) -> Iterator[Layer]:
        """List a convolution, its normalisation and its activation, as far as they have keys."""
        yield Layer(f"{ours}{place}", theirs + self.convolution, "convolution")
        norm, activation = theirs + self.norm, theirs + self.activation
        if f"{norm}.weight" in tensors:
            kind: Kind = "batch norm" if f"{norm}.running_mean" in tensors else "affine norm"
            yield Layer(f"{ours}{place + 1}", norm, kind)
        if f"{activation}.weight" in tensors:
            yield Layer(f"{ours}{place + 2}", activation, "activation")

    def questions(self, parts: Sequence[Layer]) -> tuple[NeededHint, ...]:
        """Ask for the activation if it has no weights."""
        if any(part.kind == "activation" for part in parts):
            return ()
        return (NeededHint("--activation", ("relu", "leaky-relu[=SLOPE]")),)

    def options(self, parts: Sequence[Layer]) -> frozenset[str]:
        """Return what may be told: the activation and the norm, where they have no weights."""
        kinds = {part.kind for part in parts}
        return frozenset(
            [
                *(one.option for one in self.questions(parts)),
                *(() if kinds & {"batch norm", "affine norm"} else ("--norm",)),
            ]
        )

    def config(self, shapes: Shapes, answers: ShapeHints) -> ResidualUNetConfig:
        """Infer the network's shape."""
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
                    shapes[f"contracting.{n}.body.0.weight"][0] for n in range(depth + 1)
                ),
                "units": units if self.units else 0,
                "in_channels": shapes["contracting.0.body.0.weight"][1],
                "classes": shapes[last][0 if self.units else 1],
                "norm": "batch" if moving else answers.norm or "instance",
                "affine": not moving and "contracting.0.body.1.weight" in shapes,
                "negative_slope": answers.negative_slope,
            }
        )

    def arrange(self, state: dict[str, Tensor], config: Architecture) -> None:
        """Leave everything as it is: the network joins its maps as this family does."""

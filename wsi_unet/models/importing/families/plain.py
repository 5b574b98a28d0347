"""Families whose networks are plain convolutional U-Nets (`wsi_unet.models.networks.unet`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from wsi_unet.models.architectures.unet import Channels, UNetConfig
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
class PlainUNetLayout:
    """Names and habits of a family.

    Names are templates over these numbers, each also with 1 added ("{level1}"): `level`, from
    the top; `stage` of the expanding path, from the bottom; `conv` within a level; `slot` and
    `norm`, the places of a convolution and of its normalisation in a sequence of layers as ours.
    `rise` is the stage's level counted from 1 at the top.

    Attributes:
        first: the first level's convolutions.
        down: those of the levels below.
        up: those of the expanding path's stages.
        convolution: a convolution, after its level's name.
        head: the last convolution.
        bottom: the bottom level's convolutions, where they have a name of their own.
        norm: a normalisation, after its level's name; None: there are none.
        upsampling: possible names of what changes the channels while upsampling.
        convolutions: per level and side.
        skip_first: whether the copies come before the upsampled map where they are joined.
        norm_first: see `UNetConfig`, like the rest.
        negative_slope: unless told otherwise.
        align_corners: of bilinear upsampling.
        odd: what odd sides are filled up with.
        padding: None where it must be told.
        hidden_norm: whether there may be an instance normalisation without weights, so that it
            must be told.
    """

    first: str
    down: str
    up: str
    convolution: str
    head: str
    bottom: str | None = None
    norm: str | None = None
    upsampling: tuple[str, ...] = ()
    convolutions: int = 2
    skip_first: bool = True
    norm_first: bool = True
    negative_slope: float = 0.0
    align_corners: bool = False
    odd: Literal["none", "zeros", "replicate"] = "none"
    padding: Literal["valid", "same"] | None = "same"
    hidden_norm: bool = False

    def parts(self, tensors: Tensors) -> Sequence[Layer]:
        """List the parts of a network as deep as the checkpoint's keys suggest."""
        depth = self._depth(tensors)
        if depth < 1:
            return ()
        norm: Kind = "affine norm"
        if any(name.endswith(".running_mean") for name in tensors):
            norm = "batch norm"
        parts: list[Layer] = []
        for level in range(depth + 1):
            block = self._contracting(level, depth)
            parts += self._level(f"contracting.{level}", block, norm, level=level)
        for stage in range(depth):
            numbers = _numbers(stage=stage) | {"rise": depth - stage}
            block = self.up.format_map(numbers)
            parts += self._level(f"expanding.{stage}", block, norm, **numbers)
        parts += self._upsamplings(tensors, depth)
        return [*parts, Layer("head", self.head, "head")]

    def questions(self, parts: Sequence[Layer]) -> tuple[NeededHint, ...]:
        """Return what must be told besides."""
        padding = () if self.padding else (NeededHint("--padding", ("valid", "same")),)
        return (
            *padding,
            *((NeededHint("--norm", ("none", "instance")),) if self.hidden_norm else ()),
        )

    def options(self, parts: Sequence[Layer]) -> frozenset[str]:
        """Return what may be told: what must, and the activation."""
        return frozenset(["--activation", *(one.option for one in self.questions(parts))])

    def config(self, shapes: Shapes, answers: ShapeHints) -> UNetConfig:
        """Infer the network's shape."""
        depth = sum(f"contracting.{level}.0.weight" in shapes for level in range(8)) - 1
        last = self._slots[-1]
        contracting = tuple(shapes[f"contracting.{n}.{last}.weight"][0] for n in range(depth + 1))
        expanding = tuple(
            tuple(shapes[f"expanding.{stage}.{slot}.weight"][0] for slot in self._slots)
            for stage in range(depth)
        )
        upsampled, upsampling = _upsampled(shapes, contracting, expanding)
        channels = Channels(contracting=contracting, upsampled=upsampled, expanding=expanding)
        padding = answers.padding or self.padding
        fields = {
            "padding": padding,
            "depth": depth,
            "in_channels": shapes["contracting.0.0.weight"][1],
            "classes": shapes["head.weight"][0],
            "upsampling": upsampling,
            "align_corners": self.align_corners and upsampling == "bilinear",
            "norm": (self.hidden_norm and answers.norm) or self._norm_type(shapes),
            "norm_first": self.norm_first,
            "negative_slope": self.negative_slope
            if answers.negative_slope is None
            else answers.negative_slope,
            "odd": self.odd if padding == "same" else "none",
            "convolutions": self.convolutions,
        }
        by_rule = UNetConfig.model_validate({**fields, "base_width": min(512, contracting[0])})
        if by_rule.layout == channels:
            return by_rule
        return UNetConfig.model_validate({**fields, "channels": channels})

    def arrange(self, state: dict[str, Tensor], config: Architecture) -> None:
        """Swap what is joined where the family does, and move biases into the norms."""
        import torch

        shape = cast("UNetConfig", config).layout
        arriving = (shape.contracting[-1], *(widths[-1] for widths in shape.expanding[:-1]))
        for stage, before in enumerate(arriving):
            width = before if shape.upsampled is None else shape.upsampled[stage]
            if not self.skip_first:
                name = f"expanding.{stage}.0.weight"
                up, skip = state[name][:, :width], state[name][:, width:]
                state[name] = torch.cat([skip, up], dim=1)
            if shape.upsampled is not None and f"upsampling.{stage}.weight" not in state:
                # Nothing changes the channels here: a convolution that changes nothing.
                state[f"upsampling.{stage}.weight"] = torch.eye(width)[:, :, None, None]
        if self.norm is not None and self.norm_first:
            self._move_biases(state)
        elif cast("UNetConfig", config).norm == "instance":
            self._add_norms(state)

    def _move_biases(self, state: dict[str, Tensor]) -> None:
        """Subtract each convolution's bias from the mean of the norm that follows it.

        Where the norm takes the mean of the image itself, the bias makes no difference.
        """
        for name in [n for n in state if n.endswith(".bias") and n.count(".") == 3]:
            path, _, slot = name.removesuffix(".bias").rpartition(".")
            if int(slot) not in self._slots:
                continue
            bias, mean = state.pop(name), f"{path}.{int(slot) + 1}.running_mean"
            if mean in state:
                state[mean] = state[mean] - bias

    def _add_norms(self, state: dict[str, Tensor]) -> None:
        """Give each convolution a normalisation with weights that change nothing.

        That takes a place of its own after each convolution, and undoes the convolution's bias.
        """
        import torch

        for name in sorted((n for n in state if n.count(".") == 3), reverse=True):
            path, _, slot = name.removesuffix(".weight").rpartition(".")
            if name.endswith(".bias"):
                del state[name]
                continue
            place = 3 * self._slots.index(int(slot))
            weight = state.pop(name)
            state[f"{path}.{place}.weight"] = weight
            state[f"{path}.{place + 1}.weight"] = torch.ones(len(weight))
            state[f"{path}.{place + 1}.bias"] = torch.zeros(len(weight))

    @property
    def _slots(self) -> tuple[int, ...]:
        """Places of the convolutions in a level of our network."""
        step = 2 if self.norm is None else 3
        return tuple(range(0, step * self.convolutions, step))

    def _norm_type(self, shapes: Shapes) -> str:
        if self.norm is None:
            return "none"
        moving = any(name.endswith("running_mean") for name in shapes)
        return "batch" if moving else "instance"

    def _contracting(self, level: int, depth: int) -> str:
        if level == depth and self.bottom is not None:
            return self.bottom
        template = self.first if level == 0 else self.down
        return template.format_map(_numbers(level=level))

    def _depth(self, tensors: Tensors) -> int:
        """Count the levels, by their first convolution."""
        name = self.convolution.format_map(_numbers(conv=0, slot=0))
        levels = 0
        while levels < 8 and f"{self._contracting(levels, 8)}{name}.weight" in tensors:
            levels += 1
        return levels if self.bottom is not None else levels - 1

    def _level(self, ours: str, theirs: str, norm: Kind, **_: int) -> Iterator[Layer]:
        for conv, slot in enumerate(self._slots):
            place = slot + (1 if self.norm_first else 2)
            numbers = _numbers(conv=conv, slot=slot, norm=place)
            name = theirs + self.convolution.format_map(numbers)
            yield Layer(f"{ours}.{slot}", name, "convolution")
            if self.norm is not None:
                yield Layer(f"{ours}.{place}", theirs + self.norm.format_map(numbers), norm)

    def _upsamplings(self, tensors: Tensors, depth: int) -> Iterator[Layer]:
        """List what is there; and, where one is a transposed convolution, all of them."""
        for template in self.upsampling:
            names = [
                template.format_map(_numbers(stage=stage) | {"rise": depth - stage})
                for stage in range(depth)
            ]
            found = [name for name in names if f"{name}.weight" in tensors]
            transposed = any(tensors[f"{name}.weight"].shape[-1:] == (2,) for name in found)
            for stage, name in enumerate(names):
                if name in found or transposed:
                    yield Layer(f"upsampling.{stage}", name, "upsampling")


def _numbers(**numbers: int) -> dict[str, int]:
    """Return the numbers, and each plus 1."""
    return numbers | {f"{name}1": number + 1 for name, number in numbers.items()}


def _upsampled(
    shapes: Shapes, contracting: tuple[int, ...], expanding: tuple[tuple[int, ...], ...]
) -> tuple[tuple[int, ...] | None, str]:
    """Return the channels after each upsampling, and its kind."""
    kernels = {
        stage: shapes[f"upsampling.{stage}.weight"]
        for stage in range(len(expanding))
        if f"upsampling.{stage}.weight" in shapes
    }
    if not kernels:
        return None, "bilinear"
    transposed = all(shape[2:] == (2, 2) for shape in kernels.values())
    arriving = (contracting[-1], *(widths[-1] for widths in expanding[:-1]))
    upsampled = tuple(
        kernels[stage][1 if transposed else 0] if stage in kernels else before
        for stage, before in enumerate(arriving)
    )
    return upsampled, "transpose" if transposed else "bilinear"

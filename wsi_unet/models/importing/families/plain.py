"""The layouts of plain convolutional U-Nets (`wsi_unet.models.networks.unet`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from typing_extensions import override

from wsi_unet.models.architectures.fields import norm_groups
from wsi_unet.models.architectures.unet import Channels, UNetConfig
from wsi_unet.models.importing.families.layout import (
    UNWEIGHTED_NORM,
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
class PlainUNetLayout(Layout):
    """How a family names the layers of a plain U-Net, and what its networks have in common.

    Names are templates over these numbers, each also with 1 added ("{level1}"): `level`, from
    the top; `stage` of the expanding path, from the bottom; `conv` within a level; `slot` and
    `norm`, the indices of a convolution and of its normalisation in our sequence of layers.
    `rise` is the stage's level, counted from 1 at the top.

    Attributes:
        first: name of the first level's convolutions.
        down: name of the convolutions of a level below the first.
        up: name of the convolutions of an expanding stage.
        convolution: name of a convolution, appended to its level's.
        head: name of the last convolution.
        bottom: name of the bottom level's convolutions, where they have one of their own.
        norm: name of a normalisation, appended to its level's; None: there is none.
        upsampling: possible names of the layer that changes the channels while upsampling.
        convolutions: convolutions per level and side.
        skip_first: whether skip connections come before the upsampled map where they are joined.
        norm_first: see `UNetConfig`.
        negative_slope: see `UNetConfig`; the user may say otherwise.
        align_corners: see `UNetConfig`; for bilinear upsampling.
        odd: see `UNetConfig`; for same padding.
        padding: see `UNetConfig`; None: the user has to say it.
        hidden_norm: whether there may be a normalisation without weights, so that the user has to
            say whether there is.
        activated_upsampling: see `UNetConfig`.
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
    activated_upsampling: bool = False

    @override
    def layers(self, tensors: Tensors) -> Sequence[Layer]:
        depth = self._depth(tensors)
        if depth < 1:
            return ()
        norm: LayerKind = "affine norm"
        if any(name.endswith(".running_mean") for name in tensors):
            norm = "batch norm"
        layers: list[Layer] = []
        for level in range(depth + 1):
            block = self._contracting(level, depth)
            layers += self._level(f"contracting.{level}", block, norm, level=level)
        for stage in range(depth):
            numbers = _numbers(stage=stage) | {"rise": depth - stage}
            block = self.up.format_map(numbers)
            layers += self._level(f"expanding.{stage}", block, norm, **numbers)
        layers += self._upsamplings(tensors, depth)
        return [*layers, Layer("head", self.head, "head")]

    @override
    def needed_hints(self, layers: Sequence[Layer]) -> tuple[NeededHint, ...]:
        padding = () if self.padding else (NeededHint("padding", ("valid", "same")),)
        if has_weighted_norm(layers):
            return (*padding, WEIGHTED_NORM)
        return (*padding, UNWEIGHTED_NORM) if self.hidden_norm else padding

    @override
    def accepted_hints(self, layers: Sequence[Layer]) -> frozenset[str]:
        return frozenset(["activation", *(hint.option for hint in self.needed_hints(layers))])

    @override
    def config(self, shapes: Shapes, hints: ShapeHints) -> UNetConfig:
        depth = sum(f"contracting.{level}.0.weight" in shapes for level in range(8)) - 1
        last = self._slots[-1]
        contracting = tuple(
            shapes[f"contracting.{level}.{last}.weight"][0] for level in range(depth + 1)
        )
        expanding = tuple(
            tuple(shapes[f"expanding.{stage}.{slot}.weight"][0] for slot in self._slots)
            for stage in range(depth)
        )
        upsampled, upsampling = _upsampled(shapes, contracting, expanding)
        channels = Channels(contracting=contracting, upsampled=upsampled, expanding=expanding)
        padding = hints.padding or self.padding
        fields = {
            "padding": padding,
            "depth": depth,
            "in_channels": shapes["contracting.0.0.weight"][1],
            "classes": shapes["head.weight"][0],
            "upsampling": upsampling,
            "align_corners": self.align_corners and upsampling == "bilinear",
            "activated_upsampling": self.activated_upsampling,
            "norm": self._norm_type(shapes, hints),
            "norm_first": self.norm_first,
            "negative_slope": self.negative_slope
            if hints.negative_slope is None
            else hints.negative_slope,
            "odd": self.odd if padding == "same" else "none",
            "convolutions": self.convolutions,
        }
        by_rule = UNetConfig.model_validate({**fields, "base_width": min(512, contracting[0])})
        if by_rule.layout == channels:
            return by_rule
        return UNetConfig.model_validate({**fields, "channels": channels})

    @override
    def arrange(self, state: dict[str, Tensor], config: Architecture) -> None:
        """Swap the halves of joined maps where the family does, and move biases into the norms."""
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
                # Here the family has no layer: ours gets a convolution that changes nothing.
                state[f"upsampling.{stage}.weight"] = torch.eye(width)[:, :, None, None]
        norm = cast("UNetConfig", config).norm
        biased = norm_groups(norm) is not None
        if self.norm is None and norm != "none":
            self._add_norms(state, biased=biased)
        elif self.norm is not None and self.norm_first and not biased:
            self._move_biases(state)

    def _move_biases(self, state: dict[str, Tensor]) -> None:
        """Subtract each convolution's bias from the mean of the norm that follows it.

        Where the norm takes the mean of the image itself, the bias makes no difference.
        """
        for name in [key for key in state if key.endswith(".bias") and key.count(".") == 3]:
            path, _, slot = name.removesuffix(".bias").rpartition(".")
            if int(slot) not in self._slots:
                continue
            bias, mean = state.pop(name), f"{path}.{int(slot) + 1}.running_mean"
            if mean in state:
                state[mean] = state[mean] - bias

    def _add_norms(self, state: dict[str, Tensor], *, biased: bool) -> None:
        """Give each convolution a normalisation with weights that change nothing.

        Each becomes a layer of its own, so the indices of the layers shift; a convolution's bias
        is dropped where the normalisation undoes it.

        Args:
            state: the tensors, by our names.
            biased: whether convolutions keep their biases.
        """
        import torch

        for name in sorted((key for key in state if key.count(".") == 3), reverse=True):
            path, slot, leaf = name.rsplit(".", 2)
            shifted = 3 * self._slots.index(int(slot))
            if leaf == "bias":
                bias = state.pop(name)
                if biased:
                    state[f"{path}.{shifted}.bias"] = bias
                continue
            weight = state.pop(name)
            state[f"{path}.{shifted}.weight"] = weight
            state[f"{path}.{shifted + 1}.weight"] = torch.ones(len(weight))
            state[f"{path}.{shifted + 1}.bias"] = torch.zeros(len(weight))

    @property
    def _slots(self) -> tuple[int, ...]:
        """Indices of the convolutions among the layers of a level of our network."""
        step = 2 if self.norm is None else 3
        return tuple(range(0, step * self.convolutions, step))

    def _norm_type(self, shapes: Shapes, hints: ShapeHints) -> str:
        if any(name.endswith("running_mean") for name in shapes):
            return "batch"
        return hints.config_norm or "none"

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

    def _level(self, ours: str, theirs: str, norm: LayerKind, **_: int) -> Iterator[Layer]:
        for conv, slot in enumerate(self._slots):
            norm_slot = slot + (1 if self.norm_first else 2)
            numbers = _numbers(conv=conv, slot=slot, norm=norm_slot)
            name = theirs + self.convolution.format_map(numbers)
            yield Layer(f"{ours}.{slot}", name, "convolution")
            if self.norm is not None:
                yield Layer(f"{ours}.{norm_slot}", theirs + self.norm.format_map(numbers), norm)

    def _upsamplings(self, tensors: Tensors, depth: int) -> Iterator[Layer]:
        """Yield the upsampling layers: those present, or all if one is a transposed convolution."""
        for template in self.upsampling:
            names = [
                template.format_map(_numbers(stage=stage) | {"rise": depth - stage})
                for stage in range(depth)
            ]
            present = [name for name in names if f"{name}.weight" in tensors]
            transposed = any(tensors[f"{name}.weight"].shape[-1:] == (2,) for name in present)
            for stage, name in enumerate(names):
                if name in present or transposed:
                    yield Layer(f"upsampling.{stage}", name, "upsampling")


def _numbers(**numbers: int) -> dict[str, int]:
    """Return the numbers by name, and each plus 1 by its name with a 1."""
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

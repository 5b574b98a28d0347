"""How a family of checkpoints lays out its keys, and which of them a checkpoint has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from wsi_unet.models.importing.pickled import TensorInFile

if TYPE_CHECKING:
    from torch import Tensor

    from wsi_unet.models.spec import Architecture

Tensors = Mapping[str, TensorInFile]
"""The tensors of a checkpoint, by the checkpoint's names."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of tensors, by our names."""

LayerKind = Literal["convolution", "upsampling", "head", "batch norm", "affine norm", "activation"]
"""Kinds of layers; they decide which tensors a layer has."""

_LEAVES: dict[LayerKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "convolution": (("weight",), ("bias",)),
    "upsampling": (("weight",), ("bias",)),
    "head": (("weight",), ("bias",)),
    "batch norm": (
        ("weight", "bias", "running_mean", "running_var"),
        ("num_batches_tracked",),
    ),
    "affine norm": (("weight", "bias"), ()),
    "activation": (("weight",), ()),
}
"""The tensors that a layer must have, and those that it may have."""


@dataclass(frozen=True)
class Layer:
    """One layer, by both names.

    Attributes:
        ours: the name of our module.
        theirs: the name of the checkpoint's module.
        kind: which kind of layer it is.
    """

    ours: str
    theirs: str
    kind: LayerKind


@dataclass(frozen=True)
class NeededHint:
    """What a checkpoint's keys don't say, so that the user has to.

    Attributes:
        option: the field of `ImportHints` that says it, like "padding".
        choices: its possible values, as they are shown; "group:G" stands for any number.
    """

    option: str
    choices: tuple[str, ...]


WEIGHTED_NORM = NeededHint("norm", ("instance", "batch", "group:G"))
"""Asks for the norm where it has weights and no running statistics."""

UNWEIGHTED_NORM = NeededHint("norm", ("none", "instance", "batch", "group:G"))
"""Asks for the norm where it has no keys at all, if there is one."""


def has_weighted_norm(layers: Iterable[Layer]) -> bool:
    """Return whether norms have weights and no running statistics: any norm but batch norm may."""
    return any(layer.kind == "affine norm" for layer in layers)


@dataclass(frozen=True)
class ShapeHints:
    """The user's hints that decide the network's architecture; None where there is none.

    Attributes:
        padding: "valid" or "same".
        negative_slope: slope of the activation below 0 (0: ReLU).
        norm: what normalises where keys don't tell: "none", "instance", "batch" (by the statistics
            of each image by itself) or "group:G".
    """

    padding: Literal["valid", "same"] | None = None
    negative_slope: float | None = None
    norm: str | None = None

    @property
    def config_norm(self) -> str | None:
        """The norm as an architecture has it: batch norm of a single image is instance norm."""
        return "instance" if self.norm == "batch" else self.norm

    @property
    def given(self) -> frozenset[str]:
        """The fields of `ImportHints` that were given."""
        values = {
            "padding": self.padding,
            "activation": self.negative_slope,
            "norm": self.norm,
        }
        return frozenset(option for option, value in values.items() if value is not None)


@dataclass(frozen=True)
class Assumption:
    """What neither keys nor shapes say, and is assumed.

    Attributes:
        what: the assumption in words, for somebody who knows the original network.
        where: fields of the architecture, and the values with which the assumption matters.
        option: the field of `ImportHints` that would say it; None: there is none.
    """

    what: str
    where: tuple[tuple[str, object], ...] = ()
    option: str | None = None

    def applies(self, config: Architecture, given: Collection[str]) -> bool:
        """Return whether the assumption is made about a network, given the user's hints."""
        if any(getattr(config, field) != value for field, value in self.where):
            return False
        return self.option is None or self.option not in given


class Layout(Protocol):
    """How a family names and arranges the layers of one of our networks."""

    def layers(self, tensors: Tensors) -> Sequence[Layer]:
        """Return the layers of a network as deep as the checkpoint's keys suggest."""

    def needed_hints(self, layers: Sequence[Layer]) -> tuple[NeededHint, ...]:
        """Return what the user has to say."""

    def accepted_hints(self, layers: Sequence[Layer]) -> frozenset[str]:
        """Return the fields of `ImportHints` that the user may give, the needed ones included."""

    def config(self, shapes: Shapes, hints: ShapeHints) -> Architecture:
        """Infer the network's architecture.

        Raises:
            ValueError: these can't be such a network's tensors.
        """

    def arrange(self, state: dict[str, Tensor], config: Architecture) -> None:
        """Change the tensors, which have our names already, to fit our network."""


@dataclass(frozen=True)
class KeyMatch:
    """How well a checkpoint's keys match a layout.

    Attributes:
        layers: the network's layers.
        names: our name of each tensor that both know, by the checkpoint's name.
        missing: names that the checkpoint should have and lacks.
        unexpected: names that the checkpoint has and shouldn't.
    """

    layers: tuple[Layer, ...]
    names: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing or unexpected."""
        return bool(self.names) and not self.missing and not self.unexpected

    @property
    def share(self) -> float:
        """Share of all names, expected or present, that match; 0 to 1."""
        total = len(self.names) + len(self.missing) + len(self.unexpected)
        return len(self.names) / max(1, total)


def match_keys(layout: Layout, tensors: Tensors) -> KeyMatch:
    """Compare a checkpoint's names with those of a layout."""
    layers = tuple(layout.layers(tensors))
    if not layers:
        return KeyMatch((), {}, (), tuple(tensors))
    names: dict[str, str] = {}
    missing: list[str] = []
    for layer in layers:
        must, may = _LEAVES[layer.kind]
        for leaf in (*must, *may):
            theirs = f"{layer.theirs}.{leaf}"
            if theirs in tensors:
                names[theirs] = f"{layer.ours}.{leaf}"
            elif leaf in must:
                missing.append(theirs)
    missing += _missing_biases(layers, tensors)
    unexpected = tuple(name for name in tensors if name not in names)
    return KeyMatch(layers, names, tuple(missing), unexpected)


def _missing_biases(layers: Iterable[Layer], tensors: Tensors) -> list[str]:
    """Return the biases that are missing where other layers of the same kind have theirs."""
    missing = []
    for kind in ("convolution", "upsampling", "head"):
        biases = [f"{layer.theirs}.bias" for layer in layers if layer.kind == kind]
        if any(name in tensors for name in biases):
            missing += [name for name in biases if name not in tensors]
    return missing

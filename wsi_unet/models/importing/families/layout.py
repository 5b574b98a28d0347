"""What a description of a family has to offer, and which of its keys a checkpoint has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from wsi_unet.models.importing.pickled import TensorInFile

if TYPE_CHECKING:
    from torch import Tensor

    from wsi_unet.models.spec import Architecture

Tensors = Mapping[str, TensorInFile]
"""The tensors of a checkpoint, by name."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of tensors, by our names."""

Kind = Literal["convolution", "upsampling", "head", "batch norm", "affine norm", "activation"]
"""What a part of a network is; it decides which tensors the part has."""

_LEAVES: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
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
"""The tensors that a part must have, and those that it may have."""


@dataclass(frozen=True)
class Layer:
    """One layer, by both names.

    Attributes:
        ours: our module's.
        theirs: the module's in the checkpoint.
        kind: what it is.
    """

    ours: str
    theirs: str
    kind: Kind


@dataclass(frozen=True)
class NeededHint:
    """What a checkpoint's keys can't tell.

    Attributes:
        option: of the command line, like "--padding".
        choices: its values.
    """

    option: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class ShapeHints:
    """What the user told of a network.

    Attributes:
        padding: "valid" or "same"; None: not told.
        negative_slope: slope of the activation below 0 (0: ReLU); None: not told.
        norm: which normalisation there is that has no weights; None: not told.
    """

    padding: Literal["valid", "same"] | None = None
    negative_slope: float | None = None
    norm: Literal["none", "instance"] | None = None

    @property
    def given(self) -> frozenset[str]:
        """Options of the command line that were told."""
        values = {
            "--padding": self.padding,
            "--activation": self.negative_slope,
            "--norm": self.norm,
        }
        return frozenset(option for option, value in values.items() if value is not None)


@dataclass(frozen=True)
class Assumption:
    """What neither keys nor shapes tell, and is taken to be so.

    Attributes:
        what: in words, for one who knows the original.
        where: fields of the network's description and the values with which it matters.
        option: of the command line, which would tell; None: there is none.
    """

    what: str
    where: tuple[tuple[str, object], ...] = ()
    option: str | None = None

    def made(self, config: Architecture, given: Collection[str]) -> bool:
        """Tell whether it is made of a network, given what was told."""
        if any(getattr(config, field) != value for field, value in self.where):
            return False
        return self.option is None or self.option not in given


class Layout(Protocol):
    """How a family names and arranges the parts of one of our networks."""

    def parts(self, tensors: Tensors) -> Sequence[Layer]:
        """List the parts of a network as deep as the checkpoint's keys suggest."""

    def questions(self, parts: Sequence[Layer]) -> tuple[NeededHint, ...]:
        """Return what must be told besides."""

    def options(self, parts: Sequence[Layer]) -> frozenset[str]:
        """Return the options that may tell something besides; more than must be."""

    def config(self, shapes: Shapes, answers: ShapeHints) -> Architecture:
        """Infer the network's shape.

        Raises:
            ValueError: if these can't be such a network's tensors.
        """

    def arrange(self, state: dict[str, Tensor], config: Architecture) -> None:
        """Put the tensors, which have our names already, into our network's order."""


@dataclass(frozen=True)
class Fit:
    """How well a checkpoint's keys are those of a family.

    Attributes:
        parts: the network's parts.
        names: name in the checkpoint → our name, of the tensors that both know.
        missing: names that the checkpoint should have.
        unexpected: names that it shouldn't have.
    """

    parts: tuple[Layer, ...]
    names: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and nothing is too much."""
        return bool(self.names) and not self.missing and not self.unexpected

    @property
    def share(self) -> float:
        """Part of all names, known or missing, that fit; 0 to 1."""
        every = len(self.names) + len(self.missing) + len(self.unexpected)
        return len(self.names) / max(1, every)


def fit(layout: Layout, tensors: Tensors) -> Fit:
    """Compare a checkpoint's names with those of a layout."""
    parts = tuple(layout.parts(tensors))
    names: dict[str, str] = {}
    missing: list[str] = []
    for part in parts:
        must, may = _LEAVES[part.kind]
        for leaf in (*must, *may):
            theirs = f"{part.theirs}.{leaf}"
            if theirs in tensors:
                names[theirs] = f"{part.ours}.{leaf}"
            elif leaf in must:
                missing.append(theirs)
    missing += _lost_biases(parts, tensors)
    return Fit(parts, names, tuple(missing), tuple(n for n in tensors if n not in names))


def _lost_biases(parts: Iterable[Layer], tensors: Tensors) -> list[str]:
    """Return the biases that are missing where others of their kind are there."""
    lost = []
    kinds = ("convolution", "upsampling", "head")
    for kind in kinds:
        biases = [f"{part.theirs}.bias" for part in parts if part.kind == kind]
        if any(name in tensors for name in biases):
            lost += [name for name in biases if name not in tensors]
    return lost

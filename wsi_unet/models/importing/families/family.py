"""The families of checkpoints that are known, and finding the one that a file belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from wsi_unet.errors import ModelError, OptionError
from wsi_unet.models.importing.families.layout import (
    Assumption,
    Fit,
    Layout,
    NeededHint,
    ShapeHints,
    fit,
)
from wsi_unet.models.validation_errors import first_problem

if TYPE_CHECKING:
    from torch import Tensor

    from wsi_unet.models.importing.checkpoint_file import CheckpointFile
    from wsi_unet.models.spec import Architecture


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint.

    Attributes:
        name: for `--family`.
        title: for people.
        layouts: how its keys may be laid out; the best fit counts.
        head: what the networks end in; None: a sigmoid if there is one class, else a softmax.
        assumed: what its keys don't tell, and nobody is asked for.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    head: Literal["sigmoid", "softmax"] | None = None
    assumed: tuple[Assumption, ...] = ()


@dataclass(frozen=True)
class Recognised:
    """A checkpoint whose family is known.

    Attributes:
        file: the checkpoint.
        family: its family.
        layout: how its keys are laid out.
        prefix: what all its keys begin with, besides.
        fit: which key is which tensor of ours.
    """

    file: CheckpointFile
    family: Family
    layout: Layout
    prefix: str
    fit: Fit

    @property
    def questions(self) -> tuple[NeededHint, ...]:
        """What must be told besides."""
        return self.layout.questions(self.fit.parts)

    def assumed(self, config: Architecture, answers: ShapeHints) -> tuple[str, ...]:
        """Return what is taken to be so, since nothing tells, in words."""
        return tuple(one.what for one in self.family.assumed if one.made(config, answers.given))

    def check_given(self, answers: ShapeHints) -> None:
        """Refuse to be told what the checkpoint and its family leave no choice about.

        Raises:
            OptionError: if it was told.
        """
        needless = sorted(answers.given - self.layout.options(self.fit.parts))
        if needless:
            raise OptionError(
                f"{', '.join(needless)}: {self.file.path} is a checkpoint of {self.family.title}, "
                "which leaves no choice there; leave it out"
            )

    def config(self, answers: ShapeHints) -> Architecture:
        """Infer the network's shape, and check the shape of every tensor.

        Raises:
            ModelError: if these can't be such a network's tensors.
        """
        shapes = {
            ours: self.file.tensors[self.prefix + theirs].shape
            for theirs, ours in self.fit.names.items()
        }
        for theirs, ours in self.fit.names.items():
            if ours.endswith(".weight") and len(shapes[ours]) == 5:
                raise ModelError(
                    f"{self.file.path}: {self.prefix}{theirs} is a three-dimensional convolution; "
                    "only networks for images are imported"
                )
        try:
            return self.layout.config(shapes, answers)
        except ValidationError as error:
            raise ModelError(
                f"{self.file.path} is a checkpoint of {self.family.title} that can't be imported: "
                f"{first_problem(error)}"
            ) from error
        except (ValueError, IndexError, KeyError) as error:
            raise ModelError(
                f"{self.file.path} has the keys of {self.family.title}, but not its shapes: {error}"
            ) from error

    def state(self, config: Architecture) -> dict[str, Tensor]:
        """Load the weights, by our names and in our order, in float32.

        Raises:
            ModelError: if the file doesn't load or a weight isn't finite.
        """
        import torch

        from wsi_unet.models.finite import all_finite

        loaded = self.file.load()
        state = {}
        for theirs, ours in self.fit.names.items():
            tensor = loaded.pop(self.prefix + theirs)
            if not ours.endswith("num_batches_tracked"):
                state[ours] = tensor.to(torch.float32)
                if not all_finite(state[ours]):
                    raise ModelError(
                        f"{self.file.path}: {self.prefix}{theirs} holds NaN or infinite numbers"
                    )
        self.layout.arrange(state, config)
        return state

    def theirs(self, ours: str) -> str:
        """Return the checkpoint's name of one of our tensors."""
        names = {mine: foreign for foreign, mine in self.fit.names.items()}
        return self.prefix + names[ours] if ours in names else ours


def recognise(file: CheckpointFile, families: Sequence[Family]) -> Recognised:
    """Find the family of a checkpoint.

    Raises:
        ModelError: if it is none of them; names the nearest one and what keeps it from being it.
    """
    best = max(_candidates(file, families), key=lambda candidate: candidate.fit.share)
    if best.fit.complete:
        return best
    if best.fit.share < 0.2:
        raise ModelError(
            f"{file.path} is of no family that is known ({', '.join(f.name for f in families)}): "
            f"{_description(file)}"
        )
    reasons = []
    if best.fit.missing:
        reasons.append(f"it lacks {_first(best.prefix, best.fit.missing)}")
    if best.fit.unexpected:
        reasons.append(f"it also has {_first(best.prefix, best.fit.unexpected)}")
    raise ModelError(
        f"{file.path} is of no family that is known; the nearest is {best.family.name} "
        f"({best.family.title}), but {' and '.join(reasons)}"
    )


def _candidates(file: CheckpointFile, families: Sequence[Family]) -> Iterator[Recognised]:
    for prefix, tensors in file.namings():
        for family in families:
            for layout in family.layouts:
                yield Recognised(file, family, layout, prefix, fit(layout, tensors))


def _first(prefix: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{prefix}{names[0]}{more}"


def _description(file: CheckpointFile) -> str:
    """Say what a checkpoint looks like, for one who knows where it comes from."""
    kernels = [(n, one.shape) for n, one in file.tensors.items() if len(one.shape) >= 3]
    if not kernels:
        return f"{len(file.tensors)} tensors without any convolution"
    (first, shape), (last, end) = kernels[0], kernels[-1]
    sizes = sorted({"×".join(map(str, one[2:])) for _, one in kernels})
    return (
        f"{len(file.tensors)} tensors with {len(kernels)} convolutions ({', '.join(sizes)}), from "
        f"{first} {list(shape)} to {last} {list(end)}"
    )

"""Families of checkpoints, and recognising the family of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from wsi_unet.errors import ModelError, OptionError
from wsi_unet.models.importing.families.layout import (
    Assumption,
    KeyMatch,
    Layout,
    NeededHint,
    ShapeHints,
    match_keys,
)
from wsi_unet.models.validation_errors import first_problem

if TYPE_CHECKING:
    from torch import Tensor

    from wsi_unet.models.importing.checkpoint_file import CheckpointFile
    from wsi_unet.models.spec import Architecture

LEAST_SHARE = 0.2
"""Share of keys that must match for a family to be named as the nearest."""


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint.

    Attributes:
        name: its name, as `ImportHints.family` takes it.
        title: whose networks these are, for messages.
        layouts: how its keys may be laid out; the best match counts.
        head: what the networks end in; None: a sigmoid if there is one class, else a softmax.
        assumptions: what its keys don't say, and the user needn't.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    head: Literal["sigmoid", "softmax"] | None = None
    assumptions: tuple[Assumption, ...] = ()


@dataclass(frozen=True)
class RecognisedCheckpoint:
    """A checkpoint whose family is known.

    Attributes:
        file: the checkpoint.
        family: its family.
        layout: how its keys are laid out.
        prefix: what all its keys begin with, before the layout's names.
        match: which of its keys is which of our tensors.
    """

    file: CheckpointFile
    family: Family
    layout: Layout
    prefix: str
    match: KeyMatch

    @property
    def needed_hints(self) -> tuple[NeededHint, ...]:
        """What the user has to say about it."""
        return self.layout.needed_hints(self.match.layers)

    def assumptions(self, config: Architecture, hints: ShapeHints) -> tuple[str, ...]:
        """Return what is assumed because neither file nor user says it, in words."""
        return tuple(
            assumption.what
            for assumption in self.family.assumptions
            if assumption.applies(config, hints.given)
        )

    def check_hints(self, hints: ShapeHints) -> None:
        """Refuse hints about what the checkpoint and its family already decide.

        Raises:
            OptionError: there is such a hint.
        """
        needless = sorted(hints.given - self.layout.accepted_hints(self.match.layers))
        if needless:
            listed = ", ".join(f"`{option}`" for option in needless)
            raise OptionError(
                f"{listed}: {self.file.path} is a checkpoint of {self.family.title}, "
                "which leaves no choice there; leave it out",
                option=needless[0] if len(needless) == 1 else None,
            )

    def infer_config(self, hints: ShapeHints) -> Architecture:
        """Infer the network's architecture from the shapes of the tensors.

        Raises:
            ModelError: these can't be such a network's tensors.
        """
        shapes = {
            ours: self.file.tensors[self.prefix + theirs].shape
            for theirs, ours in self.match.names.items()
        }
        for theirs, ours in self.match.names.items():
            if ours.endswith(".weight") and len(shapes[ours]) == 5:
                raise ModelError(
                    f"{self.file.path}: {self.prefix}{theirs} is a three-dimensional convolution; "
                    "only networks for images are imported"
                )
        try:
            return self.layout.config(shapes, hints)
        except ValidationError as error:
            raise ModelError(
                f"{self.file.path} is a checkpoint of {self.family.title} that can't be imported: "
                f"{first_problem(error)}"
            ) from error
        except (ValueError, IndexError, KeyError) as error:
            raise ModelError(
                f"{self.file.path} has the keys of {self.family.title}, but not its shapes: {error}"
            ) from error

    def load_state(self, config: Architecture) -> dict[str, Tensor]:
        """Load the weights by our names, arranged for our network, in float32.

        Raises:
            ModelError: the file doesn't load or a weight isn't finite.
        """
        import torch

        from wsi_unet.models.finite import all_finite

        loaded = self.file.load()
        state = {}
        for theirs, ours in self.match.names.items():
            tensor = loaded.pop(self.prefix + theirs)
            if not ours.endswith("num_batches_tracked"):
                state[ours] = tensor.to(torch.float32)
                if not all_finite(state[ours]):
                    raise ModelError(
                        f"{self.file.path}: {self.prefix}{theirs} holds NaN or infinite numbers"
                    )
        self.layout.arrange(state, config)
        return state

    def their_name(self, ours: str) -> str:
        """Return the checkpoint's name of one of our tensors; ours where it has none."""
        names = {mine: theirs for theirs, mine in self.match.names.items()}
        return self.prefix + names[ours] if ours in names else ours


def recognise_family(file: CheckpointFile, families: Sequence[Family]) -> RecognisedCheckpoint:
    """Find the family of a checkpoint.

    Raises:
        ModelError: it is of none of them; names the nearest one and what doesn't match.
    """
    best = max(_candidates(file, families), key=lambda candidate: candidate.match.share)
    if best.match.complete:
        return best
    if best.match.share < LEAST_SHARE:
        known = ", ".join(family.name for family in families)
        raise ModelError(f"{file.path} is of no known family ({known}): {_describe_tensors(file)}")
    reasons = []
    if best.match.missing:
        reasons.append(f"it lacks {_name_first(best.prefix, best.match.missing)}")
    if best.match.unexpected:
        reasons.append(f"it also has {_name_first(best.prefix, best.match.unexpected)}")
    raise ModelError(
        f"{file.path} is of no known family; the nearest is {best.family.name} "
        f"({best.family.title}), but {' and '.join(reasons)}"
    )


def _candidates(file: CheckpointFile, families: Sequence[Family]) -> Iterator[RecognisedCheckpoint]:
    for prefix, tensors in file.strip_prefixes():
        for family in families:
            for layout in family.layouts:
                match = match_keys(layout, tensors)
                yield RecognisedCheckpoint(file, family, layout, prefix, match)


def _name_first(prefix: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{prefix}{names[0]}{more}"


def _describe_tensors(file: CheckpointFile) -> str:
    """Describe a checkpoint of unknown family."""
    kernels = [
        (name, tensor.shape) for name, tensor in file.tensors.items() if len(tensor.shape) >= 3
    ]
    if not kernels:
        return "it has no weights of convolutions"
    (first, first_shape), (last, last_shape) = kernels[0], kernels[-1]
    sizes = sorted({"×".join(map(str, shape[2:])) for _, shape in kernels})
    return (
        f"{len(file.tensors)} tensors with {len(kernels)} convolutions ({', '.join(sizes)}), from "
        f"{first} {list(first_shape)} to {last} {list(last_shape)}"
    )

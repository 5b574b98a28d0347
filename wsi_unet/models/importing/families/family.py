"""Families of checkpoints, and what is made of a checkpoint of a known family."""

from __future__ import annotations

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
        name: its name, as `ImportHints.family` takes it.
        title: whose networks these are, for messages.
        layouts: how its keys may be laid out; the best match counts.
        head: what the networks end in; None: a sigmoid if there is one class, else a softmax.
        assumptions: what its keys don't say, and the user needn't.
        unused: beginnings of names that its networks may have and don't need for a segmentation.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    head: Literal["sigmoid", "softmax"] | None = None
    assumptions: tuple[Assumption, ...] = ()
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecognisedCheckpoint:
    """A checkpoint whose family is known.

    Attributes:
        file: the checkpoint.
        family: its family.
        layout: how its keys are laid out.
        prefix: what the names of the network's tensors begin with, before the layout's names.
        match: which of its tensors is which of ours.
        left_out: the file's other entries, in words; "" where there are none.
    """

    file: CheckpointFile
    family: Family
    layout: Layout
    prefix: str
    match: KeyMatch
    left_out: str = ""

    @property
    def needed_hints(self) -> tuple[NeededHint, ...]:
        """What the user has to say about it."""
        return self.layout.needed_hints(self.match.layers)

    def assumptions(self, config: Architecture, hints: ShapeHints) -> tuple[str, ...]:
        """Return what is assumed because neither file nor user says it, in words."""
        assumed = [
            assumption.what
            for assumption in self.family.assumptions
            if assumption.applies(config, hints.given)
        ]
        if hints.norm == "batch":
            assumed.append("batch norm by the statistics of each window, as instance norm")
        if any("norm" in layer.kind for layer in self.match.layers):
            assumed.append("norms with an epsilon of 1e-5")
        if self.left_out:
            assumed.append(f"left out of the file, as not part of the network: {self.left_out}")
        return tuple(assumed)

    def check_hints(self, hints: ShapeHints) -> None:
        """Refuse hints about what the checkpoint and its family already decide.

        Raises:
            OptionError: there is such a hint, or one that they contradict.
        """
        needless = sorted(hints.given - self.layout.accepted_hints(self.match.layers))
        if needless:
            listed = ", ".join(f"`{option}`" for option in needless)
            raise OptionError(
                f"{listed}: {self.file.path} is a checkpoint of {self.family.title}, "
                "which leaves no choice there; leave it out",
                option=needless[0] if len(needless) == 1 else None,
            )
        for hint in self.needed_hints:
            kinds = [choice.partition(":")[0] for choice in hint.choices]
            if (
                hint.option == "norm"
                and hints.norm is not None
                and hints.norm.partition(":")[0] not in kinds
            ):
                raise OptionError(
                    f"`norm={hints.norm}`: {self.file.path} has weights of a norm; give "
                    f"{' or '.join(hint.choices)}",
                    option="norm",
                )

    def infer_config(self, hints: ShapeHints) -> Architecture:
        """Infer the network's architecture from the shapes of the tensors.

        Raises:
            ModelError: these can't be such a network's tensors.
            OptionError: the norm has groups that these widths can't be divided into.
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
            problem = first_problem(error)
            if problem.startswith("norm: "):
                problem = problem.removeprefix("norm: ")
                raise OptionError(
                    f"`norm={hints.norm}`: {self.file.path}: {problem}", option="norm"
                ) from error
            raise ModelError(
                f"{self.file.path} is a checkpoint of {self.family.title} that can't be imported: "
                f"{problem}"
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

        loaded = self.file.load([self.prefix + theirs for theirs in self.match.names])
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

"""Finding the networks of known families among the entries of a checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from wsi_unet.errors import ModelError, OptionError
from wsi_unet.models.importing.entries import MOST_LISTED, group_by_prefix, list_entries
from wsi_unet.models.importing.families.family import Family, RecognisedCheckpoint
from wsi_unet.models.importing.families.layout import match_keys
from wsi_unet.models.importing.families.origin import describe_origin
from wsi_unet.models.importing.pickled import TensorInFile
from wsi_unet.wording import count

if TYPE_CHECKING:
    from wsi_unet.models.importing.checkpoint_file import CheckpointFile

LEAST_SHARE = 0.2
"""Share of the keys below a prefix, and of all, that must match for a family to be called near."""

WHOLE = "."
"""The entry that is the whole file."""

_LEAST_KERNEL = 64
"""Numbers in a tensor of three axes or more that is taken for the kernel of a network."""

_TRAINING = re.compile(r"optim|loss|criteri|metric", re.IGNORECASE)
"""Parts of names that belong to optimisers, losses and metrics, not to networks."""

_MEASURES = re.compile(
    r"(^|_)(acc|accuracy|auroc|confmat|dice|f1|iou|jaccard|miou|precision|recall)($|_)"
    r"|^(decay|epoch|global_step|n_averaged|num_updates|step)$",
    re.IGNORECASE,
)
"""Parts of names that belong to metrics and counters, if they aren't kernels."""


def recognise_family(
    file: CheckpointFile, families: Sequence[Family], entry: str | None = None
) -> RecognisedCheckpoint:
    """Find the network in a checkpoint.

    It may lie below any prefix; what lies beside it is left out.

    Args:
        file: the checkpoint.
        families: the families that it may be of.
        entry: where the network lies, if there are several; "." for the whole file.

    Raises:
        ModelError: there is none; names the nearest family and what doesn't match.
        OptionError: there are several networks, or weights of another one, and `entry` doesn't say
            which; or nothing lies there.
    """
    candidates = list(_candidates(file, families))
    networks = _find_networks(candidates)
    if entry is not None:
        networks = _choose_entry(file, networks, entry)
    if not networks:
        raise ModelError(f"{file.path} {_explain_failure(file, candidates, families)}")
    unknown = [] if entry is not None else _find_kernels(file, networks)
    if len(networks) > 1 or unknown:
        raise OptionError(_ask_which(file, networks, unknown), option="entry")
    (network,) = networks
    used = {network.prefix + name for name in network.match.names}
    beside = (*(name for name in file.tensors if name not in used), *file.others)
    return replace(network, left_out=list_entries(beside, network.prefix))


def _candidates(file: CheckpointFile, families: Sequence[Family]) -> Iterator[RecognisedCheckpoint]:
    """Yield the best match below each prefix that has one, shortest prefixes first."""
    for prefix, tensors in group_by_prefix(file.tensors):
        best: RecognisedCheckpoint | None = None
        for family in families:
            for layout in family.layouts:
                match = match_keys(layout, tensors)
                candidate = RecognisedCheckpoint(file, family, layout, prefix, match)
                if match.names and (best is None or match.share > best.match.share):
                    best = candidate
        if best is not None:
            yield best


def _find_networks(candidates: Sequence[RecognisedCheckpoint]) -> list[RecognisedCheckpoint]:
    """Return the candidates that are whole networks, with nothing in them that is unknown.

    Networks within the prefix of another one, but not of its tensors, are known.
    What is part of another candidate, whole or not, isn't a network of its own.
    """
    whole: dict[str, RecognisedCheckpoint] = {}
    for candidate in sorted(candidates, key=lambda one: -len(one.prefix)):
        inside = tuple(whole)
        if not candidate.match.missing and not [
            name
            for name in candidate.match.unexpected
            if not name.startswith(candidate.family.unused)
            and not _belongs_to_training(name, candidate.file.tensors[candidate.prefix + name])
            and not (candidate.prefix + name).startswith(inside)
        ]:
            whole[candidate.prefix] = candidate
    return [
        one
        for one in candidates
        if one.prefix in whole
        and not any(_is_part(one, other) for other in candidates)
        and not any(_lacks_statistics(one, other) for other in whole.values())
    ]


def _is_part(one: RecognisedCheckpoint, other: RecognisedCheckpoint) -> bool:
    """Return whether a candidate's tensors are those of one with a shorter prefix."""
    if len(other.prefix) >= len(one.prefix) or not one.prefix.startswith(other.prefix):
        return False
    below = one.prefix.removeprefix(other.prefix)
    return any(below + name in other.match.names for name in one.match.names)


def _lacks_statistics(one: RecognisedCheckpoint, other: RecognisedCheckpoint) -> bool:
    """Return whether a candidate has just the parameters of another one, as averages may have."""
    missing = other.match.names.keys() - one.match.names.keys()
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return (
        one.match.names.keys() <= other.match.names.keys()
        and any(name.endswith("running_mean") for name in missing)
        and all(name.endswith(statistics) for name in missing)
    )


def _belongs_to_training(name: str, tensor: TensorInFile) -> bool:
    parts = name.split(".")
    return any(map(_TRAINING.search, parts)) or (
        not _is_kernel(tensor) and any(map(_MEASURES.search, parts))
    )


def _is_kernel(tensor: TensorInFile) -> bool:
    return len(tensor.shape) >= 3 and math.prod(tensor.shape) >= _LEAST_KERNEL


def _find_kernels(file: CheckpointFile, networks: Sequence[RecognisedCheckpoint]) -> list[str]:
    """Return the names of kernels that are of no network that is known, and not of training."""
    used = {one.prefix + name for one in networks for name in one.match.names}
    unused = tuple(one.prefix + name for one in networks for name in one.family.unused)
    return [
        name
        for name, tensor in file.tensors.items()
        if _is_kernel(tensor)
        and name not in used
        and not name.startswith(unused)
        and not _belongs_to_training(name, tensor)
    ]


def _choose_entry(
    file: CheckpointFile, networks: list[RecognisedCheckpoint], entry: str
) -> list[RecognisedCheckpoint]:
    """Return the networks at an entry or, if there is none, below it."""
    exact = [one for one in networks if _entry_name(one) == entry]
    chosen = exact or [one for one in networks if one.prefix.startswith(f"{entry}.")]
    if networks and not chosen:
        names = ", ".join(map(_entry_name, networks[:MOST_LISTED]))
        raise OptionError(
            f"`entry`: {file.path} has no network of a known family at {entry!r}, but at {names}",
            option="entry",
        )
    return chosen


def _entry_name(network: RecognisedCheckpoint) -> str:
    return network.prefix.removesuffix(".") or WHOLE


def _ask_which(
    file: CheckpointFile, networks: Sequence[RecognisedCheckpoint], unknown: Sequence[str]
) -> str:
    shown = networks[:MOST_LISTED]
    listed = ", ".join(f"{_entry_name(one)} ({one.family.name})" for one in shown)
    if len(networks) > len(shown):
        listed += f" and {len(networks) - len(shown)} more"
    if unknown:
        prefix = networks[0].prefix if len(networks) == 1 else ""
        listed += f"; and weights of no known family: {list_entries(unknown, prefix)}"
    choices = " or ".join(f"`entry={_entry_name(one)}`" for one in shown)
    return (
        f"{file.path} holds more than one network: {listed}; give {choices} to wsi-unet model "
        "import"
    )


def _explain_failure(
    file: CheckpointFile, candidates: Sequence[RecognisedCheckpoint], families: Sequence[Family]
) -> str:
    """Return why a checkpoint is of no known family."""
    origin = describe_origin(file.content)
    if origin:
        return f"is a checkpoint of {origin}, which isn't among the known families"
    partial = [candidate for candidate in candidates if not candidate.match.complete]
    best = max(partial, key=lambda candidate: len(candidate.match.names), default=None)
    if (
        best is None
        or best.match.share < LEAST_SHARE
        or len(best.match.names) < LEAST_SHARE * len(file.tensors)  # a piece of another network
    ):
        known = ", ".join(family.name for family in families)
        return f"is of no known family ({known}): {_describe_tensors(file)}"
    reasons = []
    if best.match.missing:
        reasons.append(f"it lacks {_name_first(best.prefix, best.match.missing)}")
    if best.match.unexpected:
        reasons.append(f"it also has {_name_first(best.prefix, best.match.unexpected)}")
    return (
        f"is of no known family; the nearest is {best.family.name} ({best.family.title}), "
        f"but {' and '.join(reasons)}"
    )


def _name_first(prefix: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{prefix}{names[0]}{more}"


def _describe_tensors(file: CheckpointFile) -> str:
    """Describe a checkpoint of unknown family."""
    kernels = [
        (name, tensor.shape) for name, tensor in file.tensors.items() if len(tensor.shape) >= 3
    ]
    if not kernels:
        return f"it has {count(len(file.tensors), 'tensor')}, but no weights of convolutions"
    (first, first_shape), (last, last_shape) = kernels[0], kernels[-1]
    sizes = sorted({"×".join(map(str, shape[2:])) for _, shape in kernels})
    return (
        f"{count(len(file.tensors), 'tensor')} with {count(len(kernels), 'convolution')} "
        f"({', '.join(sizes)}), from {first} {list(first_shape)} to {last} {list(last_shape)}"
    )

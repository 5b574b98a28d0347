"""Finding tensors by name in what a checkpoint holds, and listing what lies beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wsi_unet.models.importing.pickled import LONGEST_KEY, DamagedPickleError, TensorInFile

MOST_TENSORS = 20_000
"""Tensors that a file may have at most; a large network has some thousand."""

LONGEST_ENTRY = LONGEST_KEY
"""Characters of the longest name of a tensor, its containers included; networks' are shorter."""

MOST_LISTED = 6
"""Entries that are listed by name."""

_DEEPEST = 16
"""Containers within containers that are looked into."""

_WRAPPERS = {"_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod"}
"""Parts of names that PyTorch's own wrappers add, anywhere; networks have no such parts."""


@dataclass
class Entries:
    """The entries of a checkpoint, by names whose parts are joined by dots.

    Attributes:
        tensors: its tensors.
        others: names of everything else, in the order of the file; a list of plain values is one.
    """

    tensors: dict[str, TensorInFile] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def find_entries(value: Any) -> Entries:
    """Find the entries in nested dictionaries, lists and tuples.

    A container that is there twice is looked into once, so what refers to itself or doubles with
    every level costs no more than its bytes.

    Raises:
        DamagedPickleError: there are more tensors than a network's, or two of one name.
    """
    entries, seen = Entries(), {id(value)}
    waiting: list[tuple[str, Iterator[tuple[Any, Any]]]] = [("", _children(value))]
    while waiting:
        path, children = waiting[-1]
        child = next(children, None)
        if child is None:
            waiting.pop()
            continue
        key, content = child
        name = path + str(key)[: LONGEST_ENTRY + 1]
        if isinstance(content, TensorInFile) and len(name) <= LONGEST_ENTRY:
            _add_tensor(entries, name, content)
        elif id(content) in seen:
            continue
        elif len(waiting) < _DEEPEST and _holds_more(content):
            waiting.append((f"{name}.", _children(content)))
        elif len(entries.others) < MOST_TENSORS:
            entries.others.append(name)
        if isinstance(content, dict | list | tuple):
            seen.add(id(content))
    return entries


def list_entries(names: Iterable[str], prefix: str) -> str:
    """List entries in words, each container that `prefix` doesn't lead through as one.

    >>> list_entries(["net.a.weight", "epoch", "adam.0.step", "adam.1.step"], "net.")
    'net.a.weight, epoch, adam (2)'
    """
    groups: dict[str, list[str]] = {}
    inside = prefix.split(".")[:-1]
    for name in names:
        parts = name.split(".")
        shared = 0
        while shared < min(len(inside), len(parts) - 1) and inside[shared] == parts[shared]:
            shared += 1
        groups.setdefault(".".join(parts[: shared + 1]), []).append(name)
    listed = [
        members[0] if len(members) == 1 else f"{group} ({len(members)})"
        for group, members in groups.items()
    ]
    more = f" and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
    return ", ".join(listed[:MOST_LISTED]) + more


def group_by_prefix(
    tensors: Mapping[str, TensorInFile],
) -> Iterator[tuple[str, dict[str, TensorInFile]]]:
    """Yield every prefix that ends with a dot, "" first, with the tensors by what follows it."""
    groups: dict[str, dict[str, TensorInFile]] = {"": dict(tensors)}
    for name, tensor in tensors.items():
        parts = name.split(".")
        for count in range(1, min(len(parts), _DEEPEST)):
            prefix = ".".join(parts[:count]) + "."
            groups.setdefault(prefix, {})[name[len(prefix) :]] = tensor
    yield from groups.items()


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        return iter(value.items())
    return enumerate(value) if isinstance(value, list | tuple) else iter(())


def _holds_more(value: Any) -> bool:
    """Return whether something is a container that has more in it than plain values."""
    return any(isinstance(item, TensorInFile | dict | list | tuple) for _, item in _children(value))


def _add_tensor(entries: Entries, name: str, tensor: TensorInFile) -> None:
    name = _clean(name, entries.tensors)
    if name in entries.tensors:
        raise DamagedPickleError(f"two tensors called {name}")
    entries.tensors[name] = tensor
    if len(entries.tensors) > MOST_TENSORS:
        raise DamagedPickleError(f"more than {MOST_TENSORS} tensors")


def _clean(name: str, taken: Collection[str]) -> str:
    """Return a name without the parts of wrappers, unless another tensor has that name."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    cleaned = ".".join(parts)
    return cleaned if parts and cleaned not in taken else name

"""Finding slides: in folders, by patterns, in object stores. Looks at names, opens nothing.

What counts as a slide in a search is known by its suffix, so that notes, tables and thumbnails
beside the slides stay out. Pictures (PNG, JPEG, BMP) count only where a pattern names their suffix
("slides/**/*.png"): next to whole slides they are nearly always overviews.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path

from wsi_unet import locations
from wsi_unet.errors import InputError
from wsi_unet.slides.readers.zarr_metadata import DOCUMENTS
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.opening import open_store

ZARR = ".zarr"
DICOM = ".dcm"
SUFFIXES = (
    ".bif",
    ".btf",
    ".mrxs",
    ".ndpi",
    ".scn",
    ".svs",
    ".svslide",
    ".tif",
    ".tiff",
    ".vms",
    ".vmu",
)
"""Suffixes of files that are taken for slides; beside them Zarr and DICOM folders are."""

_MAGIC = re.compile(r"[*?[]")
_LITERAL_SUFFIX = re.compile(r".*\.[^.*?\[\]]+", re.DOTALL)

States = frozenset[int]
"""How far into a pattern a path has come; several places at once because of "**"."""


@dataclass(frozen=True)
class Pattern:
    """A glob, matched part by part so that a search enters only folders that can hold matches.

    Attributes:
        parts: one regular expression per part; None is "**", any number of folders.
        suffix: whether the last part names a suffix: then other suffixes than the known count too.
    """

    parts: tuple[re.Pattern[str] | None, ...]
    suffix: bool

    @classmethod
    def of(cls, parts: list[str]) -> Pattern:
        """Return the pattern that `parts` spell, matched case by case."""
        compiled = tuple(None if part == "**" else re.compile(translate(part)) for part in parts)
        return cls(compiled, bool(parts) and _LITERAL_SUFFIX.fullmatch(parts[-1]) is not None)

    @property
    def start(self) -> States:
        """Where matching begins."""
        return self._skip({0})

    def step(self, states: States, part: str) -> States:
        """Return how far a path has come after one more of its parts; nowhere: it can't match."""
        reached = set()
        for state in states:
            if state == len(self.parts):
                continue
            expression = self.parts[state]
            if expression is None:
                reached.add(state)
            elif expression.match(part):
                reached.add(state + 1)
        return self._skip(reached)

    def complete(self, states: States) -> bool:
        """Whether a path that has come so far matches."""
        return len(self.parts) in states

    def _skip(self, states: set[int]) -> States:
        """Add the places behind every "**", which may stand for nothing."""
        for state in range(len(self.parts)):
            if state in states and self.parts[state] is None:
                states.add(state + 1)
        return frozenset(states)


EVERYTHING = Pattern.of([])


@dataclass
class Found:
    """What one argument stands for.

    Attributes:
        slides: paths as they would be typed, or URLs; sorted.
        searched: whether it was looked for: the argument is a folder or a pattern.
        skipped: what couldn't be searched, one line each.
    """

    slides: list[str]
    searched: bool
    skipped: list[str] = field(default_factory=list)


def find_slides(argument: str) -> Found:
    """Return the slides that an argument stands for.

    Args:
        argument: a slide (whether it is there or not), a folder, a pattern with "*", "?", "[" or
            "**", or a URL; one that ends in a slash is a folder.

    Raises:
        InputError: a folder or a pattern holds no slide; the argument is empty.
        OutputError: an object store can't be listed.
    """
    if not argument.strip():
        raise InputError("a slide without a name: an argument is empty")
    if locations.is_url(argument):
        return _find_remote(argument)
    path = Path(argument)
    if _there(path):
        if not path.is_dir() or _is_zarr(path):
            return Found([argument], searched=False)
        found = _search(argument, EVERYTHING)
        if found.slides == [argument]:
            return Found([argument], searched=False)  # the folder itself is a slide
    elif _MAGIC.search(argument):
        fixed, parts = _split(argument)
        found = _search(fixed, Pattern.of(parts))
    else:
        return Found([argument], searched=False)
    return _not_empty(argument, found)


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name, a folder that may not be entered: opening it will tell
        return False


def _is_zarr(path: Path) -> bool:
    try:
        return path.suffix == ZARR or any((path / name).is_file() for name in DOCUMENTS)
    except OSError:  # it may not be entered, which searching it will tell
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _split(pattern: str) -> tuple[str, list[str]]:
    """Return the folder that a pattern begins with, and the parts that are to be matched.

    >>> _split("slides/2024/**/*.svs"), _split("*.svs")
    (('slides/2024', ['**', '*.svs']), ('', ['*.svs']))
    """
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
    fixed = "/".join(parts[:first])
    return fixed or ("/" if first else ""), [part for part in parts[first:] if part]


def _not_empty(argument: str, found: Found) -> Found:
    if not found.slides:
        reason = f" ({found.skipped[0]})" if found.skipped else ""
        raise InputError(
            f"{argument}: no slides found{reason}; known are {' '.join((*SUFFIXES, DICOM, ZARR))}, "
            "others have to be named, one by one or by a pattern such as '*.png'"
        )
    return found


def _search(folder: str, pattern: Pattern) -> Found:
    found = Found([], searched=True)
    found.slides.extend(sorted(_walk(folder, pattern, pattern.start, set(), found.skipped)))
    return found


def _walk(
    folder: str,
    pattern: Pattern,
    states: States,
    seen: set[tuple[int, int, States, bool]],
    skipped: list[str],
    *,
    whole: bool = False,
    in_series: bool = False,
) -> Iterator[str]:
    """Yield the slides in a folder and below it.

    Args:
        folder: path of the folder; "" is the current one.
        pattern: what is looked for.
        states: how far `folder` has come in it.
        seen: what was searched already, by the folder's device and number and by how far it had
            come in the pattern: links may lead in circles.
        skipped: gets what can't be searched.
        whole: whether a folder above matches, so that everything below is looked for.
        in_series: whether a folder above is a DICOM slide, whose files all belong to it.
    """
    whole = whole or pattern.complete(states)
    states = states if pattern.parts else frozenset()
    try:
        stat = Path(folder).stat()
        here = stat.st_dev, stat.st_ino, states, whole
        if here in seen:
            return
        seen.add(here)
        with os.scandir(folder or ".") as scan:
            entries = sorted(
                (entry.name, _is_folder(entry)) for entry in scan if not entry.name.startswith(".")
            )
    except OSError as error:
        skipped.append(f"{folder}: can't be searched: {error.strerror or error}")
        return
    files = {name for name, is_folder in entries if not is_folder}
    if whole and not in_series and any(name.lower().endswith(DICOM) for name in files):
        in_series = True
        yield folder or "."
    for name, is_folder in entries:
        path = os.path.join(folder, name)  # noqa: PTH118 (as typed: "./a" and "a" differ)
        reached = pattern.step(states, name)
        if not is_folder:
            if _is_slide(name, pattern, reached, whole):
                yield path
        elif name.endswith(ZARR) or _is_zarr(Path(path)):
            wanted = whole or pattern.complete(reached)
            if wanted and name.endswith(ZARR) and not (Path(path) / BOOKKEEPING).is_dir():
                yield path
        elif (whole or reached) and f"{name}.mrxs" not in files:
            yield from _walk(
                path, pattern, reached, seen, skipped, whole=whole, in_series=in_series
            )


def _is_slide(name: str, pattern: Pattern, reached: States, whole: bool) -> bool:
    """Whether a file is wanted, by its name."""
    if pattern.complete(reached) and pattern.suffix:
        return True
    return (whole or pattern.complete(reached)) and name.lower().endswith(SUFFIXES)


def _find_remote(argument: str) -> Found:
    """Return the slides that a URL stands for; only "*" makes a pattern of one."""
    if "*" in argument:
        scheme, _, rest = argument.partition("://")
        fixed, parts = _split(rest)
        if not fixed:
            raise InputError(f"{argument}: a pattern can't stand for the bucket; name it")
        root, pattern = f"{scheme}://{fixed}", Pattern.of(parts)
    elif argument.endswith("/"):
        root, pattern = argument, EVERYTHING
    else:
        return Found([argument], searched=False)
    root = locations.resolve(root)
    found = Found([], searched=True)
    wanted: dict[str, None] = {}
    ours: set[str] = set()
    for key in open_store(root).list(""):
        _sort_key(key.split("/"), pattern, wanted, ours)
    found.slides.extend(locations.join(root, key) for key in sorted(wanted.keys() - ours))
    return _not_empty(argument, found)


def _sort_key(parts: list[str], pattern: Pattern, wanted: dict[str, None], ours: set[str]) -> None:
    """Put what an object belongs to into `wanted`, or into `ours` if it is one of our outputs."""
    states, whole = pattern.start, pattern.complete(pattern.start)
    for number, part in enumerate(parts):
        if part.startswith("."):
            return
        states = pattern.step(states, part)
        last = number == len(parts) - 1
        if part.endswith(ZARR) and not last:
            place = "/".join(parts[: number + 1])
            if parts[number + 1] == BOOKKEEPING:
                ours.add(place)
            elif whole or pattern.complete(states):
                wanted[place] = None
            return
        if last and _is_slide(part, pattern, states, whole):
            wanted["/".join(parts)] = None
        whole = whole or pattern.complete(states)

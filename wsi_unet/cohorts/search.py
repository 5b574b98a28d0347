"""Finding slides in folders, by patterns and in object stores, by their names alone.

A search knows slides by their suffixes, so that notes, tables and thumbnails beside them stay out.
Pictures (PNG, JPEG, BMP) count only where a pattern names their suffix ("slides/**/*.png"): next to
whole slides they are nearly always overviews.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wsi_unet.cohorts.patterns import (
    EVERYTHING,
    GlobPattern,
    States,
    is_pattern,
    split_pattern,
)
from wsi_unet.errors import InputError
from wsi_unet.locations import Location
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
"""Suffixes of files that are taken for slides; so are Zarr folders and folders of DICOM files."""


@dataclass
class SearchResult:
    """The slides that one argument stands for.

    Attributes:
        slides: their paths as a user would type them, or their URLs; sorted.
        searched: whether the argument is a folder or a pattern, rather than a slide.
        skipped: folders that couldn't be searched, one line each.
    """

    slides: list[str]
    searched: bool
    skipped: list[str] = field(default_factory=list)


def find_slides(argument: str) -> SearchResult:
    """Return the slides that an argument stands for.

    Args:
        argument: a slide (whether it is there or not), a folder, a pattern with "*", "?", "[" or
            "**", or a URL; one that ends in a slash is a folder.

    Raises:
        InputError: the argument is empty, or there is no slide in the folder or for the pattern.
        OptionError: a URL is of no kind that can be read.
        OutputError: an object store can't be listed.
    """
    if not argument.strip():
        raise InputError("one of the slides is an empty text; give its path or URL")
    if Location.parse(argument).is_url:
        return _find_remote(argument)
    path = Path(argument)
    if _exists(path):
        if not path.is_dir() or _is_zarr(path):
            return SearchResult([argument], searched=False)
        result = _search(argument, EVERYTHING)
        if result.slides == [argument]:
            return SearchResult([argument], searched=False)  # the folder itself is a slide
    elif is_pattern(argument):
        fixed, parts = split_pattern(argument)
        result = _search(fixed, GlobPattern.from_parts(parts))
    else:
        return SearchResult([argument], searched=False)
    _check_any(argument, result)
    return result


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name, a folder that may not be entered: opening it reports that
        return False


def _is_zarr(path: Path) -> bool:
    try:
        return path.suffix == ZARR or any((path / name).is_file() for name in DOCUMENTS)
    except OSError:  # it may not be entered: searching it reports that
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _check_any(argument: str, result: SearchResult) -> None:
    if not result.slides:
        reason = f" ({result.skipped[0]})" if result.skipped else ""
        raise InputError(
            f"{argument}: no slides found{reason}; a search knows slides by the suffixes "
            f"{' '.join((*SUFFIXES, DICOM, ZARR))}; name others one by one, or by a pattern such "
            "as '*.png'"
        )


def _search(folder: str, pattern: GlobPattern) -> SearchResult:
    result = SearchResult([], searched=True)
    result.slides.extend(sorted(_walk(folder, pattern, pattern.start, set(), result.skipped)))
    return result


def _walk(
    folder: str,
    pattern: GlobPattern,
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
        states: how much of the pattern `folder` has matched.
        seen: what was searched already, by the folder's device and inode and by how much of the
            pattern it had matched: links may lead in circles.
        skipped: gets a line for each folder that can't be searched.
        whole: whether a folder above matches, so that everything below it is taken.
        in_series: whether a folder above is a DICOM slide, whose files all belong to it.
    """
    whole = whole or pattern.matches(states)
    states = states if pattern.parts else frozenset()
    try:
        stat = Path(folder).stat()
        identity = stat.st_dev, stat.st_ino, states, whole
        if identity in seen:
            return
        seen.add(identity)
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
            wanted = whole or pattern.matches(reached)
            if wanted and name.endswith(ZARR) and not (Path(path) / BOOKKEEPING).is_dir():
                yield path
        elif (whole or reached) and f"{name}.mrxs" not in files:
            yield from _walk(
                path, pattern, reached, seen, skipped, whole=whole, in_series=in_series
            )


def _is_slide(name: str, pattern: GlobPattern, reached: States, whole: bool) -> bool:
    """Return whether a file is taken for a slide, by its name."""
    if pattern.matches(reached) and pattern.names_suffix:
        return True
    return (whole or pattern.matches(reached)) and name.lower().endswith(SUFFIXES)


def _find_remote(argument: str) -> SearchResult:
    """Return the slides that a URL stands for; in a URL only "*" makes a pattern."""
    if "*" in argument:
        scheme, _, rest = argument.partition("://")
        fixed, parts = split_pattern(rest)
        if not fixed:
            raise InputError(f"{argument}: the bucket can't be a pattern; name it")
        folder, pattern = f"{scheme}://{fixed}", GlobPattern.from_parts(parts)
    elif argument.endswith("/"):
        folder, pattern = argument, EVERYTHING
    else:
        return SearchResult([argument], searched=False)
    root = Location.parse(folder)
    slides: set[str] = set()
    outputs: set[str] = set()
    for key in open_store(root).list(""):
        _sort_key(key.split("/"), pattern, slides, outputs)
    result = SearchResult([str(root / key) for key in sorted(slides - outputs)], searched=True)
    _check_any(argument, result)
    return result


def _sort_key(parts: list[str], pattern: GlobPattern, slides: set[str], outputs: set[str]) -> None:
    """Add what a key belongs to, to `slides`, or to `outputs` if it is one of our results."""
    states, whole = pattern.start, pattern.matches(pattern.start)
    for number, part in enumerate(parts):
        if part.startswith("."):
            return
        states = pattern.step(states, part)
        last = number == len(parts) - 1
        if part.endswith(ZARR) and not last:
            folder = "/".join(parts[: number + 1])
            if parts[number + 1] == BOOKKEEPING:
                outputs.add(folder)
            elif whole or pattern.matches(states):
                slides.add(folder)
            return
        if last and _is_slide(part, pattern, states, whole):
            slides.add("/".join(parts))
        whole = whole or pattern.matches(states)

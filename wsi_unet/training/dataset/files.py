"""Which files a recipe names: each image with its truth, and whose they are."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_unet.cohorts.inputs import DICOM, SUFFIXES, ZARR
from wsi_unet.errors import RecipeError
from wsi_unet.training.recipe import DataSource

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
"""Suffixes of images that aren't slides."""
ANNOTATIONS = (".geojson", ".json", ".xml")
TRUTHS = (".png", ".tif", ".tiff", ZARR, *ANNOTATIONS)


@dataclass(frozen=True)
class DataFile:
    """An image and what says what is true of it.

    Attributes:
        source: the number of its source in the recipe.
        name: of the image, relative to the data folder where it lies in it.
        image: an image or slide.
        labels: label image, annotations or label OME-Zarr.
        within: annotations outside of which nothing is known; None: all is known.
        patient: whose it is; the image itself where nothing else is said.
    """

    source: int
    name: str
    image: Path
    labels: Path
    within: Path | None
    patient: str


def find_files(source: DataSource, number: int, folder: Path) -> list[DataFile]:
    """Find the files of a source, in the natural order of their names: "9" before "10".

    Args:
        source: what the recipe says of it.
        number: of the source in the recipe.
        folder: what its paths are relative to.

    Raises:
        RecipeError: nothing matches, an image lacks its truth, or what belongs together can't be
            told.
    """
    key = f"data.{number}"
    images = _find_images(source.images, f"{key}.images", folder)
    labels = _find_partners(source.labels, f"{key}.labels", folder, images, TRUTHS)
    within: Sequence[Path | None] = [None] * len(images)
    if source.within is not None:
        within = _find_partners(source.within, f"{key}.within", folder, images, ANNOTATIONS)
    names = [_name(image, folder) for image in images]
    patients = names
    if source.group is not None:
        patients = _find_patients(source.group, f"{key}.group", images)
    return [
        DataFile(number, *parts)
        for parts in zip(names, images, labels, within, patients, strict=True)
    ]


def stem_of(path: Path) -> str:
    """Return what the names of an image and its truth have in common.

    >>> stem_of(Path("a.png")), stem_of(Path("b.v2.ome.tif")), stem_of(Path("c.ome.zarr"))
    ('a', 'b.v2', 'c')
    """
    return path.stem.removesuffix(".ome")


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts names by the numbers in them.

    >>> sorted(["b10", "b9", "a"], key=natural_order)
    ['a', 'b9', 'b10']
    """
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts)]


def _find_images(pattern: str, key: str, folder: Path) -> list[Path]:
    place = folder / Path(pattern).expanduser()
    if place.is_dir() and not _is_slide_folder(place):
        found = [path for path in _entries(place, key) if _is_image(path)]
    elif place.exists():
        found = [place]
    else:
        wanted = str(Path(pattern).expanduser())
        matches = glob.glob(wanted, root_dir=folder, recursive=True)  # noqa: PTH207
        found = [folder / match for match in matches]
        found = [path for path in found if path.is_file() or _is_slide_folder(path)]
    if not found:
        raise RecipeError(
            f"{key}: no image matches {pattern!r} in {folder}; give a folder, a file or a pattern "
            "like images/*.png, relative to the data folder"
        )
    return sorted(found, key=lambda path: natural_order(str(path)))


def _entries(folder: Path, key: str) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise RecipeError(f"{key}: {folder} can't be read: {error.strerror or error}") from error


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    return (suffix in (*SUFFIXES, *PICTURES) and path.is_file()) or _is_slide_folder(path)


def _is_slide_folder(path: Path) -> bool:
    return path.is_dir() and (path.suffix == ZARR or any(path.glob(f"*{DICOM}")))


def _find_partners(
    given: str, key: str, folder: Path, images: Sequence[Path], suffixes: Sequence[str]
) -> list[Path]:
    """Return what belongs to each image: of a folder the file of its stem, or the one file."""
    place = folder / Path(given).expanduser()
    if not place.exists():
        raise RecipeError(f"{key}: there is no {given!r} in {folder}")
    if place.is_file() or _is_slide_folder(place):
        if len(images) > 1:
            raise RecipeError(
                f"{key}: {given!r} is one file, but there are {len(images)} images; give a folder "
                "with a file of the same stem for each"
            )
        return [place]
    there = _by_stem(
        path
        for path in _entries(place, key)
        if path.suffix.lower() in suffixes and path not in images
    )
    _refuse_ambiguous(images, there, key)
    missing = [image.name for image in images if stem_of(image) not in there]
    if missing:
        raise RecipeError(
            f"{key}: {len(missing)} of {len(images)} images have no file of their stem "
            f"({', '.join(suffixes)}) in {place}, first {missing[0]}"
        )
    return [there[stem_of(image)][0] for image in images]


def _by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(paths):
        found.setdefault(stem_of(path), []).append(path)
    return found


def _refuse_ambiguous(images: Sequence[Path], partners: dict[str, list[Path]], key: str) -> None:
    for stem, same in _by_stem(images).items():
        if len(same) > 1:
            raise RecipeError(
                f"{key}: the images {same[0]} and {same[1]} have the same stem, so it can't be "
                "told what belongs to which; rename one of them"
            )
        rivals = partners.get(stem, [])
        if len(rivals) > 1:
            raise RecipeError(
                f"{key}: both {rivals[0].name} and {rivals[1].name} in {rivals[0].parent} have the "
                f"stem of {same[0].name}; leave one of them there"
            )


def _name(image: Path, folder: Path) -> str:
    return str(image.relative_to(folder)) if image.is_relative_to(folder) else str(image)


def _find_patients(group: str, key: str, images: Sequence[Path]) -> list[str]:
    try:
        expression = re.compile(group)
    except re.error as error:
        raise RecipeError(f"{key}: {group!r} isn't a regular expression ({error})") from error
    if not expression.groups:
        raise RecipeError(
            f"{key}: {group!r} has no group; put what names the patient in parentheses, like "
            "(P[0-9]+)"
        )
    patients = []
    for image in images:
        found = expression.search(stem_of(image))
        if found is None or not found[1]:
            raise RecipeError(f"{key}: {group!r} finds no patient in {stem_of(image)!r}")
        patients.append(found[1])
    return patients

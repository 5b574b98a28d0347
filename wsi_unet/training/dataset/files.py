"""Finding the files that a recipe names: each image with its truth and its patient."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_unet.cohorts.search import DICOM, SUFFIXES, ZARR
from wsi_unet.errors import RecipeError, foreign_errors_as
from wsi_unet.training.recipe_sections import DataSource
from wsi_unet.wording import count

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
"""Suffixes of images that aren't slides."""
ANNOTATIONS = (".geojson", ".json", ".xml", ".geojson.gz", ".json.gz", ".xml.gz")
TRUTHS = (".png", ".tif", ".tiff", ZARR, *ANNOTATIONS)


@dataclass(frozen=True)
class DataFile:
    """The files of a field.

    Attributes:
        source: number of the data source in the recipe.
        name: path of the image, relative to the data folder if it lies inside.
        image: path of the image or slide.
        labels: path of its truth: a label image, annotations or a label OME-Zarr.
        within: path of annotations outside which labels are unknown; None: all labels are known.
        patient: patient that the image is of; the image's name unless the recipe says otherwise.
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
        source: the source in the recipe.
        number: its number in the recipe.
        folder: folder that its paths are relative to.

    Raises:
        RecipeError: nothing matches, an image has no truth, or it is unclear which files belong
            together.
    """
    # A recipe may hold anything: "~nobody", a zero byte, a regular expression beyond all limits.
    with foreign_errors_as(RecipeError, f"data.{number}: its files can't be found"):
        return _find_files(source, number, folder)


def _find_files(source: DataSource, number: int, folder: Path) -> list[DataFile]:
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
        DataFile(number, *values)
        for values in zip(names, images, labels, within, patients, strict=True)
    ]


def stem_of(path: Path) -> str:
    """Return the stem, which the names of an image and its truth have in common.

    >>> stem_of(Path("a.png")), stem_of(Path("b.v2.ome.tif")), stem_of(Path("c.geojson.gz"))
    ('a', 'b.v2', 'c')
    """
    return path.name.removesuffix(suffix_of(path)).removesuffix(".ome")


def suffix_of(path: Path) -> str:
    """Return the suffix, with that of the packed file before ".gz".

    >>> suffix_of(Path("a.png")), suffix_of(Path("b.v2.GeoJSON.gz"))
    ('.png', '.GeoJSON.gz')
    """
    return "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts names by the numbers in them.

    >>> sorted(["b10", "b9", "a"], key=natural_order)
    ['a', 'b9', 'b10']
    """
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts)]


def _find_images(pattern: str, key: str, folder: Path) -> list[Path]:
    given = folder / Path(pattern).expanduser()
    if given.is_dir() and not _is_slide_folder(given):
        images = [path for path in _list_folder(given, key) if _is_image(path)]
    elif given.exists():
        images = [given]
    else:
        expanded = str(Path(pattern).expanduser())
        matches = glob.glob(expanded, root_dir=folder, recursive=True)  # noqa: PTH207
        images = [folder / match for match in matches]
        images = [path for path in images if path.is_file() or _is_slide_folder(path)]
    if not images:
        raise RecipeError(
            f"{key}: no image matches {pattern!r} in {folder}; give a folder, a file or a pattern "
            "like images/*.png, relative to the data folder"
        )
    return sorted(images, key=lambda path: natural_order(str(path)))


def _list_folder(folder: Path, key: str) -> list[Path]:
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
    """Return the file for each image: in a folder, the one with its stem; or the given file."""
    path = folder / Path(given).expanduser()
    if not path.exists():
        raise RecipeError(f"{key}: there is no {given!r} in {folder}")
    if path.is_file() or _is_slide_folder(path):
        if len(images) > 1:
            raise RecipeError(
                f"{key}: {given!r} is one file, but there are {len(images)} images; give a folder "
                "with a file of the same stem for each"
            )
        return [path]
    partners = _group_by_stem(
        file
        for file in _list_folder(path, key)
        if suffix_of(file).lower() in suffixes and file not in images
    )
    _refuse_ambiguous(images, partners, key)
    missing = [image.name for image in images if stem_of(image) not in partners]
    if missing:
        raise RecipeError(
            f"{key}: no file with the stem of {len(missing)} of {count(len(images), 'image')} "
            f"({', '.join(suffixes)}) is in {path}, first {missing[0]}"
        )
    return [partners[stem_of(image)][0] for image in images]


def _group_by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in sorted(paths):
        groups.setdefault(stem_of(path), []).append(path)
    return groups


def _refuse_ambiguous(images: Sequence[Path], partners: dict[str, list[Path]], key: str) -> None:
    for stem, same in _group_by_stem(images).items():
        if len(same) > 1:
            raise RecipeError(
                f"{key}: the images {same[0]} and {same[1]} have the same stem, so their files "
                "can't be told apart; rename one of them"
            )
        rivals = partners.get(stem, [])
        if len(rivals) > 1:
            raise RecipeError(
                f"{key}: both {rivals[0].name} and {rivals[1].name} in {rivals[0].parent} have the "
                f"stem of {same[0].name}; remove one of them"
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
            f"{key}: {group!r} has no group; put the part that names the patient in parentheses, "
            "like (P[0-9]+)"
        )
    patients = []
    for image in images:
        match = expression.search(stem_of(image))
        if match is None or not match[1]:
            raise RecipeError(f"{key}: {group!r} finds no patient in {stem_of(image)!r}")
        patients.append(match[1])
    return patients

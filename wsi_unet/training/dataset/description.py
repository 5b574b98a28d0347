"""Figures about the training data, for people: images, patients, pixels of each class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsi_unet.training.dataset.field import DataField
from wsi_unet.training.dataset.splitting import FieldSplit
from wsi_unet.training.recipe import Recipe
from wsi_unet.wording import count


@dataclass(frozen=True)
class Portion:
    """The fields of one source with one use.

    Attributes:
        source: number of the source in the recipe.
        images: images of the source, as the recipe names them.
        part: use: "training", "validation", or "apart" for a source that is held out as a whole.
        files: number of images or slides.
        patients: number of patients.
        megapixels: area at the training's pixel size, including pixels of unknown labels.
        pixels: pixels of each class, by name; estimated for large slides.
        license: license of the data.
        citation: citation of the data.
    """

    source: int
    images: str
    part: str
    files: int
    patients: int
    megapixels: float
    pixels: Mapping[str, int]
    license: str
    citation: str

    def __str__(self) -> str:
        """Return a line for people."""
        classes = ", ".join(f"{name} {pixels}" for name, pixels in self.pixels.items())
        return (
            f"data.{self.source} ({self.images}), {self.part}: {count(self.files, 'image')} of "
            f"{count(self.patients, 'patient')}, {self.megapixels:.1f} Mpx ({classes})"
        )


def describe_fields(recipe: Recipe, split: FieldSplit[DataField]) -> list[Portion]:
    """Return the figures of each source for each use.

    Args:
        recipe: recipe of the training.
        split: its fields.
    """
    hold_out = [field for fields in split.hold_out.values() for field in fields]
    uses = {"training": split.training, "validation": split.validation, "apart": hold_out}
    portions = []
    for number in range(len(recipe.data)):
        for use, fields in uses.items():
            of_source = [field for field in fields if field.source == number]
            if of_source:
                portions.append(_describe(recipe, number, use, of_source))
    return portions


def _describe(recipe: Recipe, number: int, use: str, fields: Sequence[DataField]) -> Portion:
    source = recipe.data[number]
    return Portion(
        source=number,
        images=source.images,
        part=use,
        files=len(fields),
        patients=len({field.patient for field in fields}),
        megapixels=round(sum(math.prod(field.shape) for field in fields) / 1e6, 3),
        pixels={
            recipe_class.name: round(math.fsum(field.amounts.get(index, 0) for field in fields))
            for index, recipe_class in enumerate(recipe.classes)
        },
        license=source.license,
        citation=source.citation,
    )

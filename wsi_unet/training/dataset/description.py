"""What a training learns from, in figures: for the screen, and for the model's card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsi_unet.training.dataset.field import DataField
from wsi_unet.training.dataset.splitting import FieldSplit
from wsi_unet.training.recipe import Recipe


@dataclass(frozen=True)
class Portion:
    """The fields of one source that are in one part.

    Attributes:
        source: its number in the recipe.
        images: what the recipe says that they are.
        part: "training", "validation" or "apart".
        files: images or slides.
        patients: whose they are.
        megapixels: of the grid that is trained at; of what isn't known too.
        pixels: of each class, by name; of large slides about.
        repaired: polygons that cross or touch themselves.
        license: of the data.
        citation: whom to name.
    """

    source: int
    images: str
    part: str
    files: int
    patients: int
    megapixels: float
    pixels: Mapping[str, int]
    repaired: int
    license: str
    citation: str

    def __str__(self) -> str:
        """One line for a person."""
        classes = ", ".join(f"{name} {pixels}" for name, pixels in self.pixels.items())
        repaired = f", {self.repaired} polygons repaired" if self.repaired else ""
        return (
            f"data.{self.source} ({self.images}), {self.part}: {self.files} images of "
            f"{self.patients} patients, {self.megapixels:.1f} Mpx ({classes}){repaired}"
        )


def describe_fields(recipe: Recipe, parts: FieldSplit[DataField]) -> list[Portion]:
    """Count what each source gives to each part.

    Args:
        recipe: whose fields they are.
        parts: them, split.
    """
    hold_out = [one for fields in parts.hold_out.values() for one in fields]
    named = {"training": parts.training, "validation": parts.validation, "apart": hold_out}
    found = []
    for number in range(len(recipe.data)):
        for part, fields in named.items():
            there = [one for one in fields if one.source == number]
            if there:
                found.append(_portion(recipe, number, part, there))
    return found


def _portion(recipe: Recipe, number: int, part: str, fields: Sequence[DataField]) -> Portion:
    source = recipe.data[number]
    return Portion(
        source=number,
        images=source.images,
        part=part,
        files=len(fields),
        patients=len({one.patient for one in fields}),
        megapixels=round(sum(math.prod(one.shape) for one in fields) / 1e6, 3),
        pixels={
            one.name: round(math.fsum(each.amounts.get(index, 0) for each in fields))
            for index, one in enumerate(recipe.classes)
        },
        repaired=sum(one.repaired for one in fields),
        license=source.license,
        citation=source.citation,
    )

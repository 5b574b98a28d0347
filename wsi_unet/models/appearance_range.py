"""The appearance of the images that a model learnt from, and whether a slide looks like them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from wsi_unet.slides.tissue.appearance import Appearance

FEWEST_PIECES = 8
"""Pieces of training images that are needed to say what the model knows."""

DIGITS = 4
"""Decimals that ranges are rounded to, so that people can read them."""

SHARE_MARGIN = 0.01
"""How far a colour's share of the absorbance may lie outside of the training's range. Grey, a third
of each, stays outside of the range of haematoxylin and eosin."""

DENSITY_MARGIN = 0.1
"""How far the logarithm of the absorbance may lie outside: a quarter more, or a fifth less."""


def _check_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the least is above the greatest")
    return bounds


_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Bounds = Annotated[tuple[_Finite, _Finite], AfterValidator(_check_order)]


class AppearanceRange(BaseModel):
    """The range of each number of `Appearance` over pieces of training images.

    Attributes:
        pieces: number of pieces.
        red: least and greatest share of red in the absorbance.
        green: of green.
        blue: of blue.
        density: of the decadic logarithm of the absorbance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pieces: Annotated[int, Field(ge=1)]
    red: _Bounds
    green: _Bounds
    blue: _Bounds
    density: _Bounds

    @classmethod
    def from_pieces(cls, pieces: Iterable[Appearance | None]) -> AppearanceRange | None:
        """Return the range of pieces; None if fewer than `FEWEST_PIECES` have tissue."""
        seen = [piece for piece in pieces if piece is not None]
        if len(seen) < FEWEST_PIECES:
            return None
        bounds = {
            name: (round(min(values), DIGITS), round(max(values), DIGITS))
            for name, values in _collect_values(seen).items()
        }
        return cls(pieces=len(seen), **bounds)

    def explain_difference(self, tissue: Appearance) -> str | None:
        """Return how some tissue differs from all pieces; None if it looks like them."""
        for name in ("red", "green", "blue"):
            share, (least, greatest) = getattr(tissue, name), getattr(self, name)
            if not least - SHARE_MARGIN <= share <= greatest + SHARE_MARGIN:
                return (
                    f"{100 * share:.0f} % of the light that its tissue absorbs is {name}, and "
                    f"{100 * least:.0f} to {100 * greatest:.0f} % in the images it was trained on"
                )
        least, greatest = self.density
        if tissue.density > greatest + DENSITY_MARGIN:
            times = 10 ** (tissue.density - greatest)
            return f"its tissue is {times:.2g} times as dense as in the darkest training image"
        if tissue.density < least - DENSITY_MARGIN:
            times = 10 ** (least - tissue.density)
            return f"its tissue is {times:.2g} times as pale as in the palest training image"
        return None


def _collect_values(pieces: Sequence[Appearance]) -> dict[str, list[float]]:
    """Return the values of pieces, by the name of the number."""
    return {name: [getattr(each, name) for each in pieces] for name in asdict(pieces[0])}

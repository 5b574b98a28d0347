"""Summarising a model for users before it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wsi_unet.models.architectures import costs

if TYPE_CHECKING:
    from wsi_unet.models.spec import ModelSpec

USUAL_TILES = (256, 512, 1024)
"""Sides of cores that are shown where there is a choice, px."""


@dataclass(frozen=True)
class ModelSummary:
    """What follows from a spec.

    Attributes:
        architecture: the network's architecture, as in model.json.
        classes: the names of the network's outputs, in order.
        parameters: number of its weights, batch norm folded away.
        before: context above and left of a core, px.
        after: context below and right of it, px.
        shrink: px by which the output is smaller than the input on each side.
        period: cores start at multiples of this, and their sides are multiples of it, px.
        edge: how windows continue beyond the slide's edge: "mirror", "clip" or "cut".
        tiles: sides of cores, px; a single one where there is no choice.
        windows: side of the window that each of these cores needs, px.
        exactness: "exact" or "approximate".
        reason: why it isn't exact; empty if it is.
    """

    architecture: dict[str, Any]
    classes: tuple[str, ...]
    parameters: int
    before: int
    after: int
    shrink: int
    period: int
    edge: str
    tiles: tuple[int, ...]
    windows: tuple[int, ...]
    exactness: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the summary as a JSON document."""
        return asdict(self)


def summarise(spec: ModelSpec) -> ModelSummary:
    """Return what follows from a spec."""
    border = spec.border()
    possible = USUAL_TILES if spec.tile is None else (spec.tile,)
    tiles = tuple(tile for tile in possible if tile % border.period == 0) or (border.period,)
    return ModelSummary(
        architecture=_architecture_fields(spec),
        classes=tuple(item.name for item in spec.classes),
        parameters=costs.parameter_count(spec),
        before=border.before,
        after=border.after,
        shrink=border.shrink,
        period=border.period,
        edge=border.edge,
        tiles=tiles,
        windows=tuple(costs.window_side(spec, tile) for tile in tiles),
        exactness=spec.exactness,
        reason=spec.inexact_because,
    )


def _architecture_fields(spec: ModelSpec) -> dict[str, Any]:
    fields = spec.architecture.model_dump(mode="json", exclude_none=True, exclude={"dropout"})
    if "channels" in fields:
        fields.pop("base_width", None)  # `channels` overrules it
    return fields

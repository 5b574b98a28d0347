"""What is worth knowing of a model before it runs, as numbers and words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wsi_unet.models.architectures import costs

if TYPE_CHECKING:
    from wsi_unet.models.spec import ModelSpec

USUAL_TILES = (256, 512, 1024)


@dataclass(frozen=True)
class Summary:
    """What a spec implies.

    Attributes:
        architecture: what describes the network.
        classes: the names of its outputs, in order.
        parameters: numbers in it, batch norm folded away.
        before: context above and left of a core, px.
        after: context below and right of it, px.
        shrink: what the output lacks of the input per side, px.
        period: cores start at multiples of this and are multiples of it long, px.
        edge: how windows continue beyond the slide's edge: "mirror", "clip" or "cut".
        tiles: cores that it can be run on, px; a single one where there is no choice.
        windows: the input that each of them takes, px.
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


def summarise(spec: ModelSpec) -> Summary:
    """Say what a spec implies."""
    border = spec.border()
    possible = USUAL_TILES if spec.tile is None else (spec.tile,)
    tiles = tuple(tile for tile in possible if tile % border.period == 0) or (border.period,)
    return Summary(
        architecture=_shape(spec),
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


def _shape(spec: ModelSpec) -> dict[str, Any]:
    dumped = spec.architecture.model_dump(mode="json", exclude_none=True, exclude={"dropout"})
    if "channels" in dumped:
        dumped.pop("base_width", None)  # which it overrules
    return dumped

"""Facts about a model, as `wsi-unet model` shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wsi_unet.wording import plain
from wsi_unet_cli.common.output import micrometres, print_facts
from wsi_unet_cli.common.text import speak

if TYPE_CHECKING:
    from wsi_unet.models import ModelSpec
    from wsi_unet.models.summary import ModelSummary

_EDGES = {
    "mirror": "mirrored",
    "clip": "mirrored at the right and bottom up to the period, then zeros",
    "cut": "zeros",
}


def show_model(spec: ModelSpec, *, title: str, needed: str = "") -> None:
    """Print what a spec says and implies.

    Args:
        spec: the model's spec.
        title: the heading.
        needed: options that an import needs.
    """
    from wsi_unet.models.summary import summarise

    print_facts(title, [*_facts(spec, summarise(spec)), ("import needs", needed)])


def model_document(spec: ModelSpec) -> dict[str, Any]:
    """Return what a spec says and implies as a JSON document."""
    from wsi_unet.models.summary import summarise

    card = spec.model_dump(mode="json")
    if card["architecture"].get("channels") is not None:
        card["architecture"].pop("base_width", None)  # overruled by the channels
    return {"spec": card, "summary": summarise(spec).to_json()}


def _facts(spec: ModelSpec, summary: ModelSummary) -> Iterator[tuple[str, str]]:
    yield "name", spec.name
    shape = dict(summary.architecture)
    yield "family", str(shape.pop("family"))
    yield "description", spec.description
    yield "network", ", ".join(f"{name} {_plain(value)}" for name, value in shape.items())
    yield "parameters", f"{summary.parameters:,}" if summary.parameters else "unknown"
    yield "classes", ", ".join(summary.classes)
    yield "background", spec.background or "none"
    above = "" if spec.thresholds is None else f" above {plain(spec.thresholds)}"
    yield "head", spec.head + above
    yield "pixel size", "any" if spec.mpp is None else micrometres(spec.mpp)
    yield "input", f"{spec.channel_order}, {_normalisation(spec)}"
    yield "border", _border(summary)
    yield "beyond the slide", _EDGES[summary.edge]
    yield "period", f"{summary.period} px"
    yield "tiles", _tiles(spec, summary)
    reason = f" ({speak(summary.reason)})" if summary.reason else ""
    yield "exactness", summary.exactness + reason
    yield "assumed", "; ".join(spec.assumed)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "-".join(map(_plain, value))
    return str(value)


def _normalisation(spec: ModelSpec) -> str:
    normalisation = spec.normalisation
    if normalisation.statistics == "slide":
        return "zero mean and unit variance over each slide's tissue"
    means, stds = (
        ",".join(f"{n:.4g}" for n in numbers) for numbers in (normalisation.mean, normalisation.std)
    )
    return f"(intensity / 255 − {means}) / {stds}"


def _border(summary: ModelSummary) -> str:
    if summary.before == summary.after:
        return f"{summary.before} px"
    return f"{summary.before} px before and {summary.after} px after a core"


def _tiles(spec: ModelSpec, summary: ModelSummary) -> str:
    pairs = zip(summary.tiles, summary.windows, strict=True)
    examples = ", ".join(f"{tile} px (window {window} px)" for tile, window in pairs)
    if spec.tile is not None:
        return f"only {examples}"
    return f"any multiple of {summary.period} px, like {examples}"

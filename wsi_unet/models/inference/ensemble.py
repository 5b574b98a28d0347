"""One model or several whose probabilities are averaged, on one view of each window or more.

Nothing here needs torch: costs and tiling are known before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from typing_extensions import override

from wsi_unet.errors import OptionError
from wsi_unet.geometry import Border, Box, Edge, Shape, round_up
from wsi_unet.models.architectures import costs
from wsi_unet.models.architectures.border import fix_border
from wsi_unet.models.architectures.exactness import explain_inexactness
from wsi_unet.models.inference.augmentation import VIEWS, Tta, widen_for_views
from wsi_unet.models.inference.label_groups import LONGEST_NAME, LabelGroup, list_label_groups
from wsi_unet.wording import plain

if TYPE_CHECKING:
    from wsi_unet.models.architectures.costs import ForwardCost
    from wsi_unet.models.model import Model
    from wsi_unet.models.number_types import Precision
    from wsi_unet.models.spec import Exactness, ModelSpec

NAME_SUFFIX = ".ensemble"
"""The end of the name of several models together."""


@dataclass(frozen=True)
class IntensityStatistics:
    """Statistics that normalise intensities from 0 to 1: (intensity − mean) / std.

    Attributes:
        mean: one number per channel of a network, in the network's order.
        std: one number above 0 per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class EnsembleMember(costs.NetworkDescription):
    """One model of an ensemble, and the views that it predicts.

    Attributes:
        model: the model.
        tta: which views of a window are averaged.
    """

    model: Model
    tta: Tta

    @property
    def spec(self) -> ModelSpec:
        """The model's description."""
        return self.model.spec

    @property
    @override
    def in_channels(self) -> int:
        return self.spec.in_channels

    @property
    @override
    def classes_out(self) -> int:
        return self.spec.classes_out

    @override
    def border(self) -> Border:
        return self._tiling[0]

    @override
    def forward_cost(self, side: int, item_bytes: int) -> ForwardCost:
        return self.spec.forward_cost(side, item_bytes)

    @property
    def needs_placement(self) -> bool:
        """Whether the network has to be told where a window lies in the slide."""
        return self.spec.architecture.depends_on_size and self.inexact_because == ""

    @property
    def inexact_because(self) -> str:
        """Why tiling can change a label; empty where it can't."""
        return self._tiling[1]

    @cached_property
    def _tiling(self) -> tuple[Border, str]:
        spec, window = self.spec, self.spec.window
        needed = spec.architecture.border()
        if self.tta != "none":
            needed = widen_for_views(needed)
        if window is None:
            return needed, ""
        reason = self._inexact(needed, window)
        try:
            return fix_border(needed, window, exact=not reason), reason
        except ValueError as error:
            raise OptionError(
                f"{spec.name} with `tta={self.tta}`: {error}", option="tta"
            ) from error

    def _inexact(self, needed: Border, window: int) -> str:
        """Return why windows of one size aren't exact; "" where they are."""
        reason = explain_inexactness(self.spec.architecture, needed, window)
        if reason:
            return reason
        if self.tta != "none" and not needed.shrink and window % needed.period:
            return f"its window of {window} px isn't a multiple of its period {needed.period}"
        return ""


@dataclass(frozen=True)
class Ensemble:
    """One model or several whose probabilities are averaged, over views of a window too.

    Attributes:
        models: models with the same classes, head and pixel size.
        tta: which views of a window are averaged.

    Raises:
        OptionError: the models differ in these; the message names the model and the difference.
    """

    models: tuple[Model, ...]
    tta: Tta = "none"

    def __post_init__(self) -> None:
        first, *others = (model.spec for model in self.models)
        for other in others:
            _check_alike(first, other)
        if len(self._tiles) > 1 or any(tile % self._period for tile in self._tiles):
            raise OptionError(
                "ensemble: each of its models runs on windows of one size only, and their cores of "
                f"{', '.join(map(str, self._tiles))} px don't fit each other; use them one by one"
            )

    @cached_property
    def members(self) -> tuple[EnsembleMember, ...]:
        """Each model with the views it predicts."""
        return tuple(EnsembleMember(model, self.tta) for model in self.models)

    @property
    def spec(self) -> ModelSpec:
        """The first model's description; all models share its classes, head and pixel size."""
        return self.models[0].spec

    @property
    def name(self) -> str:
        """The model's name, or for several models the first one's with a suffix."""
        if len(self.models) == 1:
            return self.spec.name
        return self.spec.name[: LONGEST_NAME - len(NAME_SUFFIX)] + NAME_SUFFIX

    @property
    def groups(self) -> tuple[LabelGroup, ...]:
        """The label images, in the order in which they are predicted."""
        return list_label_groups(self.spec, self.name)

    @property
    def label_count(self) -> int:
        """One more than the largest value in any label image."""
        return max(item.value for group in self.groups for item in group.classes) + 1

    @property
    def sha256(self) -> str:
        """The model's hash, or for several models a hash of all their hashes."""
        hashes = [model.sha256 for model in self.models]
        if len(hashes) == 1:
            return hashes[0]
        return hashlib.sha256(json.dumps(["mean", *hashes]).encode()).hexdigest()

    @property
    def forward_passes(self) -> int:
        """Number of forward passes on each window."""
        return len(self.models) * len(VIEWS[self.tta])

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Number types that every model can run in."""
        possible = self.spec.precisions
        others = [model.spec.precisions for model in self.models[1:]]
        return tuple(name for name in possible if all(name in other for other in others))

    @property
    def inexact_because(self) -> str:
        """Why tiling can change a label; empty where it can't."""
        reasons = {m.spec.name: m.inexact_because for m in self.members if m.inexact_because}
        if len(self.models) == 1:
            return next(iter(reasons.values()), "")
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())

    @property
    def exactness(self) -> Exactness:
        """Whether tiling can change a label."""
        return "approximate" if self.inexact_because else "exact"

    @property
    def tile(self) -> int | None:
        """Side of a tile's core, px, if the models leave no choice; or else None."""
        return self.border().tile

    @property
    def normalised_by_slide(self) -> bool:
        """Whether any model normalises with the slide's own statistics."""
        return any(model.spec.normalisation.statistics == "slide" for model in self.models)

    @property
    def constants(self) -> tuple[IntensityStatistics, ...]:
        """The constants that each model's spec normalises with."""
        specs = [model.spec.normalisation for model in self.models]
        return tuple(IntensityStatistics(constants.mean, constants.std) for constants in specs)

    @cached_property
    def _borders(self) -> tuple[Border, ...]:
        return tuple(member.border() for member in self.members)

    @cached_property
    def _period(self) -> int:
        return math.lcm(*(border.period for border in self._borders))

    @cached_property
    def _tiles(self) -> tuple[int, ...]:
        """Sides of the cores of the models that allow only one, px."""
        return tuple(sorted({b.tile for b in self._borders if b.tile is not None}))

    def border(self) -> Border:
        """Return the context that a core needs so that every model can compute it."""
        return self._border

    @cached_property
    def _border(self) -> Border:
        if len(self._borders) == 1:
            return self._borders[0]
        before = round_up(max(border.before for border in self._borders), self._period)
        after = round_up(max(border.after for border in self._borders), self._period)
        return Border(before, after, 0, self._period, self._edge(), next(iter(self._tiles), None))

    def _edge(self) -> Edge:
        """Return how windows meet the slide's edge, so that every model's window fits in."""
        edges = {border.edge for border in self._borders}
        if len(edges) == 1:
            return edges.pop()
        return "mirror" if "mirror" in edges else "clip"

    def memory(
        self, tile: int, precision: str, *, probabilities: bool, unfolds: bool = False
    ) -> int:
        """Estimate the most memory that predicting a core of `tile` × `tile` px takes, in bytes.

        The arguments are those of `costs.tile_memory`.
        """
        averaged = self.forward_passes > 1
        total = sum(
            costs.tile_memory(
                member,
                tile,
                precision,
                probabilities=probabilities or averaged,
                unfolds=unfolds,
            )
            for member in self.members
        )
        if self.spec.head == "sigmoid":  # probabilities, comparisons and labels of each class
            total += 8 * self.spec.classes_out * tile * tile
        if not averaged:
            return total
        # The sum of the probabilities, one view's turned window in two memory orders, and the
        # previous view's output.
        largest = max(costs.window_side(member, tile) ** 2 for member in self.members)
        numbers = max(2 * member.in_channels + 3 * member.classes_out for member in self.members)
        return total + 4 * (self.spec.classes_out * tile * tile + numbers * largest)

    def largest_map(self, tile: int) -> int:
        """Return the number of values in the largest feature map for a core of `tile` px."""
        return max(costs.largest_map(member, tile) for member in self.members)

    def flops(self, tile: int) -> int:
        """Return the floating-point operations for all views of one core of `tile` × `tile` px."""
        once = sum(costs.window_flops(member, tile) for member in self.members)
        return once * len(VIEWS[self.tta])


def find_member_boxes(border: Border, core: Box, shape: Shape) -> tuple[Box, Box]:
    """Return the core and window with which one model of an ensemble computes a wanted core.

    Args:
        border: the model's own border.
        core: the wanted core, px of the raster; starts at a multiple of the model's period.
        shape: (rows, columns) of the whole raster, px.
    """
    own = border.core(core.intersection(Box.from_shape(shape)))
    return own, border.window(own, shape)


def _check_alike(first: ModelSpec, other: ModelSpec) -> None:
    """Refuse models whose probabilities don't mean the same."""

    def name_classes(spec: ModelSpec) -> Sequence[str]:
        return [item.name for item in spec.classes]

    for what, one, two in (
        ("classes", name_classes(first), name_classes(other)),
        ("background", first.background, other.background),
        ("head", first.head, other.head),
        ("thresholds", first.thresholds, other.thresholds),
        ("pixel size", first.mpp, other.mpp),
    ):
        if one != two:
            raise OptionError(
                f"ensemble: {other.name} differs from {first.name} in its {what} ({plain(two)} "
                f"instead of {plain(one)}); only models that answer the same question can be "
                "averaged"
            )

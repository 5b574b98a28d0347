"""What finding the objects of a run will do and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsi_unet.errors import OptionError
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.objects.intensities.quantities import Measured
from wsi_unet.objects.options import parse_measure, resolve_rules
from wsi_unet.objects.rule import ObjectRule
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.slides.slide import Slide

PIXELS_PER_SECOND = 5e6
"""Label pixels per second in which one process finds the objects of tissue full of nuclei (see
`benchmarks/objects.py`): what is sparser takes less."""

BYTES_PER_PIXEL = 0.3
"""Bytes of the table per label pixel of such tissue."""


@dataclass(frozen=True)
class ObjectPlan:
    """How the objects of a run are found.

    Attributes:
        rule: the rule of each class.
        measure: what of them is measured on the slide.
    """

    rule: ObjectRule
    measure: tuple[Measured, ...]

    def estimate(self, pixels: int, processes: int) -> ObjectCosts:
        """Return what that needs, by how long it took elsewhere: nothing is measured.

        Args:
            pixels: predicted pixels of all label groups.
            processes: number of worker processes.
        """
        seconds = pixels / (PIXELS_PER_SECOND * processes)
        return ObjectCosts(seconds, int(pixels * BYTES_PER_PIXEL))

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-able values."""
        return {"rule": self.rule.model_dump(mode="json"), "measure": list(self.measure)}


@dataclass(frozen=True)
class ObjectCosts:
    """What finding the objects of a run needs.

    Attributes:
        seconds: estimated time.
        expected_bytes: what the tables of real slides stay below.
    """

    seconds: float
    expected_bytes: int


def plan_objects(slide: Slide, ensemble: Ensemble, options: Options) -> ObjectPlan | None:
    """Return how objects are found; None if they aren't asked for.

    The rules are those of the first model's card unless the caller says otherwise.

    Raises:
        OptionError: a rule can't be, or names a class that the model doesn't have; or what is to be
            measured can't be.
    """
    if not options.objects:
        return None
    measure = parse_measure(options.measure)
    if "stain" in measure and slide.colours != 3:
        raise OptionError(
            f"{slide.path} is grey, so its stains can't be told apart; leave 'stain' out of "
            "`measure`",
            option="measure",
        )
    groups = [[label.name for label in group.classes if label.value] for group in ensemble.groups]
    card = ensemble.models[0].spec.objects or ObjectRule({})
    rule = resolve_rules(groups, [card], options.split, options.min_area, options.max_area)
    return ObjectPlan(rule, measure)

"""The object rule: how the pixels of a class become objects. Data only, so that cards can have it.

{"nuclei": {"split": "distance", "h": 0.75, "min_area": 10.0}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

_Area = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]


class ClassRule(BaseModel):
    """How the components of one class become objects.

    Lengths are in µm and areas in µm²; where the slide's pixel size isn't known, in pixels of the
    slide and their squares.

    Attributes:
        split: "none": a component is an object; "distance": it is split by a watershed on the
            distance to its edge, from the maxima that rise by at least `h` above their saddles.
        h: the height of a maximum that is an object of its own, above 0; with "distance" only.
        min_area: objects with a smaller area are dropped, and counted.
        max_area: objects with a larger area are dropped, and counted; None: none is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Literal["none", "distance"] = "none"
    h: Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)] | None = None
    min_area: _Area = 0.0
    max_area: _Area | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.split == "distance") != (self.h is not None):
            raise ValueError("h: the split 'distance' needs it, and no other has it")
        if self.max_area is not None and self.min_area > self.max_area:
            raise ValueError(
                f"min_area: {self.min_area:g} is more than max_area, {self.max_area:g}, so every "
                "object would be dropped"
            )
        return self

    def pixels_text(self) -> str:
        """Return what decides the pixels of an object, as canonical JSON: not the area limits."""
        return json.dumps({"split": self.split, "h": self.h}, sort_keys=True)


class ObjectRule(RootModel[dict[str, ClassRule]]):
    """The rule of each class by its name; a class without one isn't split and has no limits."""

    model_config = ConfigDict(frozen=True)

    root: dict[str, ClassRule] = Field(default_factory=dict, max_length=255)

    def of(self, name: str) -> ClassRule:
        """Return the rule of a class."""
        return self.root.get(name, ClassRule())

    def complete(self, names: Mapping[int, str]) -> dict[int, ClassRule]:
        """Return the rule of every class by its label value, given the classes' names."""
        return {value: self.of(name) for value, name in names.items()}

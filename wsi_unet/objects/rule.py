"""The object rule: how the pixels of a class become objects. Data only, so that cards can have it.

{"nuclei": {"split": "distance", "h": 0.75, "min_area": 10.0}}
{"nuclei": {"split": "interior", "boundary": "border", "growth": 1.5}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

MOST_GROWTH = 100.0
"""µm: boundaries aren't wider, and what is within twice as much around a block is read with it."""

_Area = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]


class ClassRule(BaseModel):
    """How the components of one class become objects.

    Lengths are in µm and areas in µm²; where the slide's pixel size isn't known, in pixels of the
    slide and their squares.

    Attributes:
        split: "none": a component is an object; "distance": it is split by a watershed on the
            distance to its edge, from the maxima that rise by at least `h` above their saddles;
            "interior": it is the interior of an object, and grows into the boundary around it.
        h: the height of a maximum that is an object of its own, above 0; with "distance" only.
        boundary: name of the class that interiors grow into, which has no objects of its own; with
            "interior" only, as `growth` is.
        growth: how far a boundary pixel may be from the nearest interior pixel, centre to centre;
            above 0.
        min_area: objects with a smaller area are dropped, and counted.
        max_area: objects with a larger area are dropped, and counted; None: none is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Literal["none", "distance", "interior"] = "none"
    h: Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)] | None = None
    boundary: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    growth: Annotated[float, Field(gt=0, le=MOST_GROWTH, allow_inf_nan=False)] | None = None
    min_area: _Area = 0.0
    max_area: _Area | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.split == "distance") != (self.h is not None):
            raise ValueError("h: the split 'distance' needs it, and no other has it")
        for name in ("boundary", "growth"):
            if (self.split == "interior") != (getattr(self, name) is not None):
                raise ValueError(f"{name}: the split 'interior' needs it, and no other has it")
        if self.max_area is not None and self.min_area > self.max_area:
            raise ValueError(
                f"min_area: {self.min_area:g} is more than max_area, {self.max_area:g}, so every "
                "object would be dropped"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what only interiors have: other rules, and so tables, stay what they were."""
        fields: dict[str, Any] = serialise(self)
        if self.split != "interior":
            fields = {k: v for k, v in fields.items() if k not in ("boundary", "growth")}
        return fields

    def pixels_text(self) -> str:
        """Return what decides the pixels of an object, as canonical JSON: not the area limits."""
        fields = self.model_dump(exclude={"min_area", "max_area"})
        return json.dumps(fields, sort_keys=True)

    def describe(self) -> str:
        """Return the split in words.

        >>> ClassRule(split="interior", boundary="border", growth=1.5).describe()
        'interior:border:1.5'
        """
        if self.h is not None:
            return f"distance:{self.h:g}"
        if self.growth is not None:
            return f"interior:{self.boundary}:{self.growth:g}"
        return "none"


class ObjectRule(RootModel[dict[str, ClassRule]]):
    """The rule of each class by its name; a class without one isn't split and has no limits."""

    model_config = ConfigDict(frozen=True)

    root: dict[str, ClassRule] = Field(default_factory=dict, max_length=255)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, rule in self.root.items():
            if rule.boundary == name:
                raise ValueError(f"{name!r} is its own boundary")
            if rule.boundary is not None and self.of(rule.boundary) != ClassRule():
                raise ValueError(
                    f"{rule.boundary!r} is the boundary of {name!r}, so it has no objects and no "
                    "rule of its own"
                )
        return self

    def of(self, name: str) -> ClassRule:
        """Return the rule of a class."""
        return self.root.get(name, ClassRule())

    def complete(self, names: Mapping[int, str]) -> dict[int, ClassRule]:
        """Return the rule of every class by its label value, given the classes' names."""
        return {value: self.of(name) for value, name in names.items()}

    def find_boundaries(self, names: Mapping[int, str]) -> dict[int, int]:
        """Return the boundary of each class that grows into one, by label value, as `complete`."""
        values = {name: value for value, name in names.items()}
        boundaries = {value: self.of(name).boundary for value, name in names.items()}
        return {value: values[name] for value, name in boundaries.items() if name is not None}

"""What finding objects came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from wsi_unet.labels.documents import Count, Text

Measure = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class ClassObjects:
    """The objects of one class.

    Attributes:
        value: label value.
        name: the class's name.
        objects: number of objects.
        mean_area: their mean area, in the label's unit of area; None without objects.
        density_per_mm2: objects per mm² of what the model looked at; None where the slide's pixel
            size or that area isn't known.
        large: number of those that are too large to be split (see `LARGEST_BOX`).
        dropped_small: objects smaller than the rule's limit, which aren't in the table.
        dropped_large: objects larger than the rule's limit.
        rule: the class's rule in words: "none", "distance:0.75", "interior:border:1.5".
    """

    value: Count
    name: Text
    objects: Count
    mean_area: Measure | None
    density_per_mm2: Measure | None
    large: Count
    dropped_small: Count
    dropped_large: Count
    rule: Text


@dataclass(frozen=True)
class PartFailure:
    """A block whose objects couldn't be found, and why."""

    block: tuple[Count, Count]
    error: Text


@dataclass(frozen=True)
class LabelObjects:
    """The objects of one label group.

    Attributes:
        label: name of the label group.
        unit: "µm", or "px" (of the slide) where its pixel size isn't known.
        area_mm2: area that the model looked at; None where it isn't known.
        parts: number of blocks whose objects are stored.
        computed: how many of them were computed now; the others were there.
        left: number of blocks whose objects are missing.
        failures: those of them that failed.
        classes: the classes, background left out.
    """

    label: str
    unit: str
    area_mm2: float | None
    parts: int
    computed: int
    left: int
    failures: tuple[PartFailure, ...]
    classes: tuple[ClassObjects, ...]

    @property
    def objects(self) -> int:
        """Number of objects of all classes."""
        return sum(each.objects for each in self.classes)

    @property
    def finished(self) -> bool:
        """Whether all objects are stored."""
        return not self.left


@dataclass(frozen=True)
class ObjectsReport:
    """What `find_objects` found.

    Attributes:
        output: path or URL of the result.
        labels: its label groups.
        seconds: time that it took.
        interrupted: whether it was ended early on purpose.
        images: names of the label images of objects that are complete, as far as they were asked
            for.
    """

    output: str
    labels: tuple[LabelObjects, ...]
    seconds: float
    interrupted: bool = False
    images: tuple[str, ...] = ()

    @property
    def state(self) -> Literal["finished", "incomplete", "interrupted"]:
        """How it ended: "incomplete" if blocks failed."""
        if self.interrupted:
            return "interrupted"
        return "finished" if all(each.finished for each in self.labels) else "incomplete"

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        document = asdict(self)
        del document["interrupted"]
        return document | {"state": self.state}

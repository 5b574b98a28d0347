"""The label groups of a model: one, or one per class where classes may overlap."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wsi_unet.models.spec import BACKGROUND_NAME, LabelClass, ModelSpec

LONGEST_NAME = 64
"""The most characters that a label group's name may have."""


@dataclass(frozen=True)
class LabelGroup:
    """One label image and the meaning of its values.

    Attributes:
        name: name of the label group in the output.
        classes: every value with its name and colour, in the order of the values, 0 first.
    """

    name: str
    classes: tuple[LabelClass, ...]


def list_label_groups(spec: ModelSpec, name: str) -> tuple[LabelGroup, ...]:
    """Return the label images of a model, in the order in which they are predicted.

    Classes that exclude each other share one image, called `name`. Each class of a multi-label
    model has an image of its own, called `name.class`, in which its pixels are 1.
    """
    if not spec.multi_label:
        return (LabelGroup(name, spec.labels),)
    background = LabelClass(value=0, name=BACKGROUND_NAME, color="#000000")
    groups: list[LabelGroup] = []
    for item in spec.classes:
        taken = {group.name for group in groups}
        foreground = LabelClass(value=1, name=item.name, color=item.color)
        groups.append(
            LabelGroup(_make_group_name(name, item.name, taken), (background, foreground))
        )
    return tuple(groups)


def _make_group_name(name: str, class_name: str, taken: set[str]) -> str:
    """Return a name of letters, digits, ".", "_" and "-" that isn't taken yet."""
    word = re.sub(r"[^A-Za-z0-9_-]+", "-", class_name).strip("-") or "class"
    number, ending = 1, ""
    while True:
        wanted = f"{name}.{word[: max(1, LONGEST_NAME - len(name) - 1 - len(ending))]}{ending}"
        if wanted not in taken:
            return wanted
        number += 1
        ending = f"-{number}"

"""What a caller says about object rules, and the rule of each class that it comes to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from wsi_unet.errors import OptionError
from wsi_unet.objects.rule import ClassRule, ObjectRule

TextPerClass = str | Mapping[str, str] | Mapping[str | None, str] | None
NumberPerClass = float | Mapping[str, float] | Mapping[str | None, float] | None
"""A value for every class, or values by the class's name, where None stands for every class."""

_DISTANCE = re.compile(r"distance:(.+)")


def resolve_rules(
    names: Iterable[str],
    card: ObjectRule,
    split: TextPerClass,
    min_area: NumberPerClass,
    max_area: NumberPerClass,
) -> ObjectRule:
    """Return the rule of every class: the card's, changed as the caller says.

    Raises:
        OptionError: a rule can't be, or names a class that isn't there.
    """
    names = list(names)
    given = {
        "split": _by_class("split", split, names),
        "min_area": _by_class("min_area", min_area, names),
        "max_area": _by_class("max_area", max_area, names),
    }
    rules = {}
    for name in names:
        rule: dict[str, Any] = card.of(name).model_dump()
        for option, values in given.items():
            value = values.get(name, values.get(None))
            if value is None:
                continue
            rule |= _parse_split(value) if option == "split" else {option: value}
        try:
            rules[name] = ClassRule.model_validate(rule)
        except ValidationError as error:
            raise _refuse(name, error) from error
    return ObjectRule(rules)


def _by_class(option: str, given: Any, names: list[str]) -> Mapping[str | None, Any]:
    values = given if isinstance(given, Mapping) else {None: given}
    for name in values:
        if name is not None and name not in names:
            raise OptionError(
                f"`{option}` names the class {name!r}, which the labels don't have; they have "
                f"{', '.join(names) or 'none'}",
                option=option,
            )
    return values


def _parse_split(text: str) -> dict[str, Any]:
    """Parse "none" or "distance:H".

    Raises:
        OptionError: it is neither.
    """
    if text == "none":
        return {"split": "none", "h": None}
    match = _DISTANCE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        return {"split": "distance", "h": float(match[1])}
    except ValueError:
        raise OptionError(
            f"`split` is {text!r}; give none, or distance:H with a height in µm, such as "
            "distance:0.75",
            option="split",
        ) from None


def _refuse(name: str, error: ValidationError) -> OptionError:
    first = error.errors(include_url=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    message = first["msg"].removeprefix("Value error, ")
    if not field:
        field, _, message = message.partition(": ")
    option = "split" if field == "h" else field
    shown = {"h": "the height h of `split`"}.get(field, f"`{field}`")
    return OptionError(f"class {name!r}: {shown}: {message}", option=option)

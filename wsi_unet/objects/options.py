"""What a caller says about object rules, and the rule of each class that it comes to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import ValidationError

from wsi_unet.errors import OptionError
from wsi_unet.objects.intensities.quantities import Measured
from wsi_unet.objects.rule import ClassRule, ObjectRule

TextPerClass = str | Mapping[str, str] | Mapping[str | None, str] | None
NumberPerClass = float | Mapping[str, float] | Mapping[str | None, float] | None
"""A value for every class, or values by the class's name, where None stands for every class."""

MEASUREMENTS = ("shape", *get_args(Measured))
"""What can be measured."""

_DISTANCE = re.compile(r"distance:(.+)")
_INTERIOR = re.compile(r"interior:(.+):([^:]+)")


def resolve_rules(
    groups: Iterable[Iterable[str]],
    cards: Iterable[ObjectRule],
    split: TextPerClass,
    min_area: NumberPerClass,
    max_area: NumberPerClass,
) -> ObjectRule:
    """Return the rule of every class: the cards', changed as the caller says.

    What the caller says for every class doesn't count for boundaries that others grow into: they
    have no objects.

    Args:
        groups: names of the classes of each label group.
        cards: the rules of the models' cards; of a class that several have, the last counts.
        split: how objects are told apart.
        min_area: the smallest area that is kept.
        max_area: the largest.

    Raises:
        OptionError: a rule can't be, or names a class that isn't there.
    """
    names_of_groups = [list(group) for group in groups]
    names = list(dict.fromkeys(name for group in names_of_groups for name in group))
    given = {
        "split": _by_class("split", split, names),
        "min_area": _by_class("min_area", min_area, names),
        "max_area": _by_class("max_area", max_area, names),
    }
    card = _merge(cards)
    rules = {name: _resolve_rule(name, card.of(name), given, (name, None)) for name in names}
    boundaries = {rule.boundary for rule in rules.values()}
    for name in names:
        if name in boundaries:
            rules[name] = _resolve_rule(name, ClassRule(), given, (name,))
    _check_boundaries(names_of_groups, rules, given)
    return ObjectRule(rules)


def _merge(cards: Iterable[ObjectRule]) -> ObjectRule:
    try:
        return ObjectRule({name: rule for card in cards for name, rule in card.root.items()})
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise OptionError(
            f"the cards of the label groups' models contradict each other ({message}); choose one "
            "`label`",
            option="label",
        ) from error


def _resolve_rule(
    name: str,
    rule: ClassRule,
    given: Mapping[str, Mapping[str | None, Any]],
    keys: tuple[str | None, ...],
) -> ClassRule:
    """Return the rule of a class, changed by the first of `keys` that each option is given for."""
    changed: dict[str, Any] = rule.model_dump()
    for option, values in given.items():
        value = next((values[key] for key in keys if values.get(key) is not None), None)
        if value is not None:
            changed |= _parse_split(value) if option == "split" else {option: value}
    try:
        return ClassRule.model_validate(changed)
    except ValidationError as error:
        raise _refuse(name, error) from error


def _check_boundaries(
    groups: list[list[str]],
    rules: Mapping[str, ClassRule],
    given: Mapping[str, Mapping[str | None, Any]],
) -> None:
    """Refuse boundaries that aren't in the labels of the class which grows, or have a rule.

    Raises:
        OptionError: one is, or nothing can grow into it.
    """
    general = given["split"].get(None)
    wanted = None if general is None else _parse_split(general)["boundary"]
    if wanted in rules and all(rule.boundary != wanted for rule in rules.values()):
        raise OptionError(
            f"`split` names the boundary {wanted!r}, but there is no other class to grow into it; "
            f"the labels have {', '.join(rules)}",
            option="split",
        )
    for names in groups:
        for name in names:
            boundary = rules[name].boundary
            if boundary is not None:
                _check_boundary(name, boundary, names, rules, given)


def _check_boundary(
    name: str,
    boundary: str,
    names: list[str],
    rules: Mapping[str, ClassRule],
    given: Mapping[str, Mapping[str | None, Any]],
) -> None:
    option, begin = "split", f"class {name!r}: the boundary of `split` is {boundary!r}, "
    if boundary == name:
        problem = "the class itself; name the class of the boundaries between its objects"
    elif boundary not in rules:
        problem = f"which the labels don't have; they have {', '.join(rules)}"
    elif boundary not in names:
        problem = (
            "which isn't in the same label group, so a pixel may be both; give none, or distance:H "
            "with a height in µm"
        )
    elif rules[boundary] != ClassRule():
        option = next((each for each, values in given.items() if boundary in values), option)
        problem = f"so that can't have a rule of its own; leave it out of `{option}`"
    else:
        return
    raise OptionError(begin + problem, option=option)


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
    """Parse "none", "distance:H" or "interior:BOUNDARY:GROWTH".

    Raises:
        OptionError: it is none of them.
    """
    parsed: dict[str, Any] = {"split": "none", "h": None, "boundary": None, "growth": None}
    try:
        if distance := _DISTANCE.fullmatch(text):
            parsed |= {"split": "distance", "h": float(distance[1])}
        elif interior := _INTERIOR.fullmatch(text):
            boundary, growth = interior.groups()
            parsed |= {"split": "interior", "boundary": boundary, "growth": float(growth)}
        elif text != "none":
            raise ValueError
    except ValueError:
        raise OptionError(
            f"`split` is {text!r}; give none, distance:H with a height in µm, such as "
            "distance:0.75, or interior:BOUNDARY:GROWTH with a class and how far the objects grow "
            "into it in µm, such as interior:border:1.5",
            option="split",
        ) from None
    return parsed


def _refuse(name: str, error: ValidationError) -> OptionError:
    first = error.errors(include_url=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    message = first["msg"].removeprefix("Value error, ")
    if not field:
        field, _, message = message.partition(": ")
    parts = {"h": "the height h", "boundary": "the boundary", "growth": "the growth"}
    option = "split" if field in parts else field
    shown = f"{parts[field]} of `split`" if field in parts else f"`{field}`"
    return OptionError(f"class {name!r}: {shown}: {message}", option=option)


def parse_measure(measure: str | Iterable[str] | None) -> tuple[Measured, ...]:
    """Return what is measured beside shapes, which always are, in the order of the table.

    Args:
        measure: words of `MEASUREMENTS`, separated by commas, or several; None: shapes alone.

    Raises:
        OptionError: something else is asked for.
    """
    if measure is None:
        return ()
    names = measure.split(",") if isinstance(measure, str) else [*measure]
    wanted = {name.strip() for name in names}
    if not wanted or not wanted <= {*MEASUREMENTS}:
        shown = ",".join(names)
        raise OptionError(
            f"`measure` is {shown!r}; give {', '.join(MEASUREMENTS)}, or several of them separated "
            "by commas",
            option="measure",
        )
    return tuple(name for name in get_args(Measured) if name in wanted)

"""What pydantic finds wrong with a description, as one line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def first_problem(error: ValidationError) -> str:
    """Return the first thing that is wrong, after the field that it is wrong with."""
    first = error.errors(include_url=False)[0]
    # Without the name of the family, which pydantic puts after the field that has several.
    place = [str(part) for part in first["loc"]]
    field = ".".join(part for i, part in enumerate(place) if place[i - 1 : i] != ["architecture"])
    if place[-1:] == ["classes"] and first["type"] == "less_than_equal":
        return f"{first['input']} outputs; at most {first['ctx']['le']}"
    problem = first["msg"].removeprefix("Value error, ")
    return f"{field}: {problem}" if field else problem

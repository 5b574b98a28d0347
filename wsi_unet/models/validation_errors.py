"""Explaining Pydantic's validation errors in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def first_problem(error: ValidationError) -> str:
    """Return the first problem, as "field: problem"."""
    first = error.errors(include_url=False)[0]
    # Pydantic puts the name of the family after "architecture": users didn't write it there.
    keys = [str(key) for key in first["loc"]]
    field = ".".join(key for i, key in enumerate(keys) if keys[i - 1 : i] != ["architecture"])
    if keys[-1:] == ["classes"] and first["type"] == "less_than_equal":
        return f"{first['input']} outputs; at most {first['ctx']['le']}"
    problem = first["msg"].removeprefix("Value error, ")
    return f"{field}: {problem}" if field else problem

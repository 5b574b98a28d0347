"""Reading recipes from TOML, with what they start from and what is said on the command line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from wsi_unet.errors import RecipeError
from wsi_unet.training.recipe import Recipe

SHIPPED = Path(__file__).parent / "recipes"

Table = dict[str, Any]


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def read_recipe(path: Path, settings: Iterable[str] = ()) -> Recipe:
    """Read a recipe, and what it starts from.

    Args:
        path: a TOML file.
        settings: what is to be otherwise, like "running.iterations=300": a key and a TOML value.

    Raises:
        RecipeError: it can't be read, isn't TOML, lacks something or holds something unknown.
    """
    table = _with_bases(path)
    for setting in settings:
        changes = _parse_setting(setting)
        if "base" in changes:
            raise RecipeError(f"--set {setting}: what a recipe starts from is said in its file")
        table = _merged(table, changes)
    return _checked(table, path)


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with everything that it says or leaves to us, to be read again."""
    document = recipe.model_dump(mode="json", exclude_none=True)
    path.write_text(tomli_w.dumps(document), encoding="utf-8")


def _with_bases(path: Path, above: tuple[Path, ...] = ()) -> Table:
    """Return a recipe's table, laid over what it starts from, which may start from others."""
    if path in above:
        raise RecipeError(f"{path}: base: it starts from itself, by way of {above[-1]}")
    table = _read(path)
    base = table.pop("base", None)
    if base is None:
        return table
    return _merged(_with_bases(_base(path, base), (*above, path)), table)


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: can't be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: isn't TOML: {error}") from error


def _base(path: Path, name: object) -> Path:
    """Return the recipe that another one starts from: a shipped one, or one beside it."""
    shipped = shipped_recipes()
    if not isinstance(name, str):
        raise RecipeError(f"{path}: base: must be a name, not {name!r}")
    if name in shipped:
        return shipped[name]
    beside = path.parent / name
    if not beside.is_file():
        known = ", ".join(shipped)
        raise RecipeError(f"{path}: base: {name!r} is neither one of {known} nor a file")
    return beside


def _merged(base: Table, over: Mapping[str, Any]) -> Table:
    """Return tables laid over each other; lists and values are replaced as a whole.

    A table whose keys are numbers changes these members of a list: `data.0.mpp` is said so in
    messages, and has to be understood so, too.
    """
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, list):
            numbered = {str(number): member for number, member in enumerate(below)}
            if value and numbered.keys() >= value.keys():
                value = list(_merged(numbered, value).values())
        elif isinstance(value, Mapping) and isinstance(below, Mapping):
            value = _merged(dict(below), value)
        result[key] = value
    return result


def _parse_setting(setting: str) -> Table:
    key, equals, value = setting.partition("=")
    if not equals:
        raise RecipeError(f"--set {setting}: give KEY=VALUE, like running.iterations=300")
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        pass
    try:
        return tomllib.loads(f"{key} = {tomli_w.dumps({'v': value}).partition('=')[2]}")
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"--set {setting}: isn't KEY=VALUE: {error}") from error


def _checked(table: Table, path: Path) -> Recipe:
    network = table.setdefault("network", {})
    if isinstance(network, dict):
        _complete_network(table, network, path)
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RecipeError(f"{path}: {_explain(first)}") from error


def _complete_network(table: Table, network: Table, path: Path) -> None:
    """Fill in the network's channels and classes, which follow from the rest of the recipe."""
    classes = table.get("classes")
    followed = {
        "in_channels": 1 if table.get("channel_order") == "gray" else 3,
        "classes": len(classes) if isinstance(classes, list) else 2,
    }
    for key, value in followed.items():
        if network.setdefault(key, value) != value:
            raise RecipeError(
                f"{path}: network.{key}: {network[key]!r}, but the recipe's channels and classes "
                f"make it {value}; leave it out"
            )


def _explain(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{where}: is missing"
    if error["type"] == "model_type":
        return f"{where}: must be a table, not {error['input']!r}"
    if error["type"] == "tuple_type":
        return f"{where}: must be a list{_advice_on_lists(where, error['input'])}"
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    key = str(error["loc"][-1])
    known = _keys_at(error["loc"][:-1])
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    advice = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
    return f"{where}: there is no such key{advice}"


def _advice_on_lists(where: str, given: object) -> str:
    """Return what to write for a list of tables, where a table was given."""
    if not isinstance(given, Mapping):
        return f", not {given!r}"
    return f": write [[{where}]] above each of its tables, or change one that is there by number"


def _keys_at(place: Sequence[int | str]) -> list[str]:
    """Return the keys that a part of a recipe may have."""
    kind: Any = Recipe
    for part in place:
        if isinstance(part, int):
            continue
        kind = _model_in(kind.model_fields[part].annotation)
    keys = [field.serialization_alias or name for name, field in kind.model_fields.items()]
    return [*keys, *(["base"] if kind is Recipe else [])]


def _model_in(annotation: Any) -> Any:
    """Return the kind of part that a field holds, alone, as an alternative or in a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, Union, UnionType):
        for inner in get_args(annotation):
            found = _model_in(inner)
            if found is not None:
                return found
    return None

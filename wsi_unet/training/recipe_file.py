"""Reading recipes from TOML files, with their base recipes and with changes; and writing them."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from wsi_unet.errors import OptionError, RecipeError, first_line
from wsi_unet.locations import Location
from wsi_unet.regular_files import read_regular
from wsi_unet.training.recipe import Recipe
from wsi_unet.wording import write_short

SHIPPED = Path(__file__).parent / "recipes"
MOST_DOTS = 100
_BETWEEN_KEYS = re.compile(r"[\n,={\[]")
"""Parts of a dotted key; tomllib takes time with their square."""
LARGEST_RECIPE = 1 << 20
"""Bytes of the largest recipe that is read; real ones are some kB."""

Table = dict[str, Any]

REQUIRED = {
    "name": 'name = "my-model"',
    "classes": 'a [[classes]] with name = "…" and color = "#rrggbb" for each class',
    "data": 'a [[data]] with images = "…" and labels = "…" for each source',
    "images": 'images = "…", a folder, a file or a pattern',
    "labels": 'labels = "…", a folder or a file',
    "color": 'color = "#rrggbb"',
}
"""What to write for the keys that a recipe can't do without."""


def shipped_recipes() -> dict[str, Path]:
    """Return the paths of the recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def read_recipe(path: str | os.PathLike[str], settings: Iterable[str] = ()) -> Recipe:
    """Read a recipe and its base recipes.

    Args:
        path: a TOML file.
        settings: changes to the recipe, like "running.iterations=300": a key and a TOML value.

    Raises:
        RecipeError: it can't be read, isn't TOML, lacks a key or has an unknown one.
    """
    file = local_path(path, "recipe")
    table = _read_with_bases(file)
    for setting in settings:
        changes = _parse_setting(setting)
        if "base" in changes:
            raise RecipeError(f"{setting}: a recipe's base can only be given in its file")
        table = _merge(table, changes)
    return _validate(table, file)


def resolve_recipe(
    recipe: Recipe | str | os.PathLike[str], data: str | os.PathLike[str] | None
) -> tuple[Recipe, Path]:
    """Return a recipe, read if a path is given, and the folder that its paths are relative to.

    Args:
        recipe: a recipe, or the path of a TOML file.
        data: the folder; None: the recipe's folder, or the current one.

    Raises:
        RecipeError: see `read_recipe`.
        OptionError: something isn't on this machine.
    """
    if isinstance(recipe, Recipe):
        return recipe, local_path("." if data is None else data, "data")
    path = local_path(recipe, "recipe")
    return read_recipe(path), path.parent if data is None else local_path(data, "data")


def local_path(given: str | os.PathLike[str], option: str) -> Path:
    """Return a path as given, "~" expanded; refuse a URL.

    Raises:
        OptionError: it is a URL: training reads and writes files of this machine only.
    """
    location = Location.parse(given)
    if location.is_url:  # a Path of it has lost a slash
        raise OptionError(
            f"{location}: recipe, data and model of a training must be on this machine; "
            "copy what is to be read, and give a path",
            option=option,
        )
    return Path(given).expanduser()


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe in full, with all defaults, so that it can be read again."""
    document = recipe.model_dump(mode="json", exclude_none=True)
    path.write_text(tomli_w.dumps(document), encoding="utf-8")


def _read_with_bases(path: Path, derived: tuple[Path, ...] = ()) -> Table:
    """Return a recipe's table merged into those of its base, its base's base, and so on.

    Args:
        path: of the recipe.
        derived: the recipes that it is a base of.
    """
    if path in derived:
        raise RecipeError(f"{path}: base: the recipe is its own base, through {derived[-1]}")
    table = _read(path)
    base = table.pop("base", None)
    if base is None:
        return table
    return _merge(_read_with_bases(_find_base(path, base), (*derived, path)), table)


def _read(path: Path) -> Table:
    try:
        text = read_regular(path, LARGEST_RECIPE).decode()
        if any(part.count(".") > MOST_DOTS for part in _BETWEEN_KEYS.split(text)):
            raise ValueError(f"a key of more than {MOST_DOTS} parts")
        return tomllib.loads(text)
    except OSError as error:
        raise RecipeError(f"{path}: can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # tomllib's own, or that of a number
        raise RecipeError(f"{path}: isn't TOML: {first_line(error)}") from error


def _find_base(path: Path, name: object) -> Path:
    """Return the path of a recipe's base: a shipped recipe, or one in the same folder."""
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


def _merge(base: Table, changes: Mapping[str, Any]) -> Table:
    """Return a table with changes merged in; lists and values are replaced as a whole.

    A table whose keys are numbers changes these members of a list, since messages name them like
    that: `data.0.mpp`.
    """
    result = dict(base)
    for key, value in changes.items():
        present = result.get(key)
        if isinstance(value, Mapping) and isinstance(present, list):
            numbered = {str(number): member for number, member in enumerate(present)}
            if value and numbered.keys() >= value.keys():
                value = list(_merge(numbered, value).values())
        elif isinstance(value, Mapping) and isinstance(present, Mapping):
            value = _merge(dict(present), value)
        result[key] = value
    return result


def _parse_setting(setting: str) -> Table:
    """Return the table that a setting stands for; a value that isn't TOML is taken as text."""
    key, equals, value = setting.partition("=")
    if not equals:
        raise RecipeError(f"{setting}: isn't KEY=VALUE, like running.iterations=300")
    try:
        return tomllib.loads(f"{key} = {value}")
    except ValueError:
        pass
    try:
        return tomllib.loads(f"{key} = {tomli_w.dumps({'v': value}).partition('=')[2]}")
    except ValueError as error:
        raise RecipeError(f"{setting}: isn't a setting like KEY=VALUE: {error}") from error


def _validate(table: Table, path: Path) -> Recipe:
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
    derived = {
        "in_channels": 1 if table.get("channel_order") == "gray" else 3,
        "classes": len(classes) if isinstance(classes, list) else 2,
    }
    for key, value in derived.items():
        if network.setdefault(key, value) != value:
            raise RecipeError(
                f"{path}: network.{key}: is {write_short(network[key])}, but follows from the "
                f"recipe's channels and classes as {value}; leave it out"
            )


def _explain(error: ErrorDetails) -> str:
    """Return pydantic's error as a message: the key, what is wrong, and what to write instead."""
    key = ".".join(str(step) for step in error["loc"])
    if error["type"] == "missing":
        example = REQUIRED.get(str(error["loc"][-1]), "")
        return f"{key}: is missing, and every recipe needs it{example and f'; write {example}'}"
    if error["type"] == "model_type":
        return f"{key}: must be a table, not {write_short(error['input'])}"
    if error["type"] == "tuple_type":
        return f"{key}: must be a list{_advise_on_list(key, error['input'])}"
    if error["type"] != "extra_forbidden":
        message = _describe_value_error(error)
        return f"{key}: {message}" if key else message
    known = _keys_at(error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
    advice = f"; did you mean {near[0]!r}?" if near else f"; known keys are {', '.join(known)}"
    return f"{key}: there is no such key{advice}"


def _describe_value_error(error: ErrorDetails) -> str:
    """Return what a value must be and what it is, or the message of a check of ours."""
    _, found, wanted = error["msg"].partition("Input should be ")
    if not found:
        return error["msg"].removeprefix("Value error, ")
    if error["type"].startswith("int_"):
        wanted = "a whole number"
    return f"must be {wanted.partition(', unable')[0]}, not {write_short(error['input'])}"


def _advise_on_list(key: str, given: object) -> str:
    """Return what to write for a list, where something else was given."""
    if not isinstance(given, Mapping):
        return f", not {given!r}"
    return f": write [[{key}]] above each of its tables, or change one by its number, like {key}.0"


def _keys_at(location: Sequence[int | str]) -> list[str]:
    """Return the keys that a section of a recipe may have."""
    section: Any = Recipe
    for step in location:
        if isinstance(step, int):
            continue
        section = _section_in(section.model_fields[step].annotation)
    keys = [field.serialization_alias or name for name, field in section.model_fields.items()]
    return [*keys, *(["base"] if section is Recipe else [])]


def _section_in(annotation: Any) -> Any:
    """Return the class of the section in an annotation: itself, in a union or in a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, Union, UnionType):
        for inner in get_args(annotation):
            section = _section_in(inner)
            if section is not None:
                return section
    return None

"""Writing counts and values in messages."""

from __future__ import annotations

import json
from collections.abc import Mapping

MOST_ITEMS = 4
"""Items of a list that a message shows."""


def count(number: int, noun: str, plural: str = "") -> str:
    """Write a number of things, whose plural has an s at the end unless it is given.

    >>> count(1, "block"), count(2, "block"), count(0, "process", "processes")
    ('1 block', '2 blocks', '0 processes')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def write_size(shape: tuple[int, int]) -> str:
    """Write (rows, columns) of pixels as people do, width first.

    >>> write_size((96, 128))
    '128 x 96 px'
    """
    return f"{shape[1]} x {shape[0]} px"


def plain(value: object) -> str:
    """Write a value of Python or JSON without brackets, quotes and names of types.

    >>> plain((0.5, 0.25)), plain({"a": 1, "b": None}), plain("x"), plain(True), plain([])
    ('0.5, 0.25', 'a 1, b none', 'x', 'yes', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return str(value)


def write_short(value: object, most: int = 40) -> str:
    """Write a value of a JSON or TOML document as it stands there, cut short.

    >>> write_short(None), write_short([1, True]), write_short("x" * 9, most=5)
    ('null', '[1, true]', "'xxxxx'")
    >>> write_short({"a": 1, "b": 2}), write_short([[]])
    ('a table with 2 keys', 'a list of 1 item')
    """
    if isinstance(value, str):
        return repr(value[:most])
    if isinstance(value, dict):
        return f"a table with {count(len(value), 'key')}"
    if isinstance(value, list | tuple) and (
        len(value) > MOST_ITEMS or any(isinstance(item, list | tuple | dict) for item in value)
    ):
        return f"a list of {count(len(value), 'item')}"
    return json.dumps(value, default=str, ensure_ascii=False)

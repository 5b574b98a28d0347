"""Cells of CSV files that spreadsheets open.

Text that would be a formula is written behind a ', and bytes that aren't UTF-8, of file names, as
escapes, so that the file is text for every reader.

>>> guard_cell("=1+1"), restore_cell("'=1+1")
("'=1+1", '=1+1')
"""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_BYTE = re.compile(r"\\u(dc[89a-f][0-9a-f])")
"""A byte as Python escapes it in text from `os.fsdecode`."""
_GUARDED = re.compile(r"'+[=+\-@\t\r]")


def guard_cell(cell: str) -> str:
    """Return text as it is written into a cell; numbers, which are no formulas, stay."""
    text = cell.encode("utf-8", "backslashreplace").decode()
    formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


def restore_cell(cell: str) -> str:
    """Return the text that `guard_cell` made a cell of."""
    text = cell[1:] if _GUARDED.match(cell) else cell
    return _BYTE.sub(lambda match: chr(int(match[1], 16)), text)

"""Names of classes that people write: compared without regard to capitals and spaces."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def fold(name: str) -> str:
    """Return what equal names have in common.

    >>> fold(" Tumor:  Positive") == fold("tumor: positive")
    True
    """
    return " ".join(name.split()).casefold()


def near(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that suggests names like this one; nothing if none is.

    >>> near("Tumro", ["stroma", "Tumor"])
    "; did you mean 'Tumor'?"
    """
    there = list(dict.fromkeys(known))
    folded: Sequence[str] = difflib.get_close_matches(fold(name), [fold(one) for one in there])
    found = [one for one in there if fold(one) in folded]
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""

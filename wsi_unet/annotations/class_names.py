"""Names of classes as people write them: compared without regard to capitals and spaces."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def fold_name(name: str) -> str:
    """Return the form that equal names have in common.

    >>> fold_name(" Tumor:  Positive") == fold_name("tumor: positive")
    True
    """
    return " ".join(name.split()).casefold()


def suggest_names(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that suggests similar names; "" if there are none.

    >>> suggest_names("Tumro", ["stroma", "Tumor"])
    "; did you mean 'Tumor'?"
    """
    candidates = list(dict.fromkeys(known))
    folded = [fold_name(candidate) for candidate in candidates]
    close = difflib.get_close_matches(fold_name(name), folded)
    similar = [candidate for candidate in candidates if fold_name(candidate) in close]
    return f"; did you mean {' or '.join(map(repr, similar))}?" if similar else ""

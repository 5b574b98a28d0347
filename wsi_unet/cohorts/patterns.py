"""Glob patterns, matched part by part, so that a search enters only folders that can match."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate

_MAGIC = re.compile(r"[*?[]")
_LITERAL_SUFFIX = re.compile(r".*\.[^.*?\[\]]+", re.DOTALL)

States = frozenset[int]
"""How many of a pattern's parts a path may have matched; several numbers because of "**"."""


@dataclass(frozen=True)
class GlobPattern:
    """A glob pattern, matched against the parts of a path one after the other.

    Attributes:
        parts: one regular expression per part; None is "**", any number of folders.
        names_suffix: whether the last part ends in a suffix that is spelled out ("*.png").
    """

    parts: tuple[re.Pattern[str] | None, ...]
    names_suffix: bool

    @classmethod
    def from_parts(cls, parts: list[str]) -> GlobPattern:
        """Return the pattern that `parts` spell; upper and lower case differ."""
        compiled = tuple(None if part == "**" else re.compile(translate(part)) for part in parts)
        return cls(compiled, bool(parts) and _LITERAL_SUFFIX.fullmatch(parts[-1]) is not None)

    @property
    def start(self) -> States:
        """Where matching starts."""
        return self._skip({0})

    def step(self, states: States, part: str) -> States:
        """Return the states after one more part of a path; none if it can't match any more."""
        reached = set()
        for state in states:
            if state == len(self.parts):
                continue
            expression = self.parts[state]
            if expression is None:
                reached.add(state)
            elif expression.match(part):
                reached.add(state + 1)
        return self._skip(reached)

    def matches(self, states: States) -> bool:
        """Return whether a path that has reached `states` matches the whole pattern."""
        return len(self.parts) in states

    def _skip(self, states: set[int]) -> States:
        """Add the states behind every "**", which may stand for no folder at all."""
        for state in range(len(self.parts)):
            if state in states and self.parts[state] is None:
                states.add(state + 1)
        return frozenset(states)


EVERYTHING = GlobPattern.from_parts([])


def is_pattern(text: str) -> bool:
    """Return whether a path has "*", "?" or "[" in it."""
    return _MAGIC.search(text) is not None


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """Return the folder that a pattern starts with, and the parts that are to be matched.

    >>> split_pattern("slides/2024/**/*.svs"), split_pattern("*.svs")
    (('slides/2024', ['**', '*.svs']), ('', ['*.svs']))
    """
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if is_pattern(part))
    fixed = "/".join(parts[:first])
    return fixed or ("/" if first else ""), [part for part in parts[first:] if part]

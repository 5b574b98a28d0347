"""Every error that this package raises on purpose.

    WsiUnetError                 exit code 1
    ├── InputError               exit code 2: something the caller gave is unusable
    │   ├── OptionError          an option's value, or options that contradict each other
    │   ├── SlideError           a slide that can't be opened or read
    │   ├── ModelError           a model that can't be loaded or isn't what its spec says
    │   ├── MaskError            a tissue mask that can't be read
    │   ├── AnnotationError      annotations that can't be read or don't fit the slide
    │   ├── EvaluationError      a prediction and a truth that can't be compared
    │   └── RecipeError          a training recipe, or the data that it names, is unusable
    ├── OutputError              exit code 2: the output can't be used as it is
    │   ├── SignatureError       it belongs to a run with other parameters
    │   └── LockedError          exit code 1: another run is writing to it
    ├── PlanError                exit code 2: the plan is refused as unaffordable
    ├── ClusterError             the Dask cluster can't be used, or went away
    ├── TrainingError            a training can't continue
    └── BlockError               one block failed; names the block

A message is one line: what happened, to what, and what to do about it. It names options as Python
does, in backticks (`tile`, `tile=104`), for which the command line shows its own spelling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class WsiUnetError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(WsiUnetError):
    """Something the caller gave is unusable."""

    exit_code = 2


class OptionError(InputError):
    """An option has an unusable value, or options contradict each other.

    Attributes:
        option: the Python name of the option to change ("tile"); None if there is no single one.
    """

    def __init__(self, message: str, *, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class SlideError(InputError):
    """A slide can't be opened or read."""


class ModelError(InputError):
    """A model can't be loaded, or isn't what its spec says."""


class MaskError(InputError):
    """A tissue mask can't be read."""


class AnnotationError(InputError):
    """Annotations can't be read, or don't fit the slide."""


class EvaluationError(InputError):
    """A prediction and a truth can't be compared."""


class RecipeError(InputError):
    """A training recipe, or the data that it names, is unusable."""


class OutputError(WsiUnetError):
    """The output can't be used as it is."""

    exit_code = 2


class SignatureError(OutputError):
    """The output belongs to a run with another slide, model or parameters."""


class LockedError(OutputError):
    """Another run is writing to the output; the same command may work later."""

    exit_code = 1


class PlanError(WsiUnetError):
    """The plan is refused as unaffordable, before anything is written."""

    exit_code = 2


class ClusterError(WsiUnetError):
    """The Dask cluster can't be used, or went away."""


class TrainingError(WsiUnetError):
    """A training can't continue; what it has learnt so far is kept."""


class BlockError(WsiUnetError):
    """One block failed; the message names it."""


LONGEST_REASON = 300
"""Characters of another library's message that are shown."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if it has none."""
    try:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    except Exception:  # whatever a library's own error does
        line = type(error).__name__
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}…"


def describe_error(error: BaseException) -> str:
    """Return the first line of an error's message, after the name of its type if it isn't ours."""
    line, kind = first_line(error), type(error).__name__
    return line if isinstance(error, WsiUnetError) or line == kind else f"{kind}: {line}"


@contextmanager
def foreign_errors_as(kind: type[WsiUnetError], what: str) -> Iterator[None]:
    """Turn whatever other libraries raise inside into an error of `kind`; ours pass unchanged.

    For the boundary where files are decoded: damaged and forged ones make libraries raise anything,
    MemoryError and RecursionError included.

    Args:
        kind: the class of the error to raise.
        what: what happened, to which file ("a.png: can't be decoded"); the cause is added.
    """
    try:
        yield
    except WsiUnetError:
        raise
    except Exception as error:
        raise kind(f"{what} ({first_line(error)})") from error


@contextmanager
def os_errors_as(kind: type[WsiUnetError], path: object) -> Iterator[None]:
    """Turn an OSError inside into an error of `kind` that says that `path` can't be read.

    Args:
        kind: the class of the error to raise.
        path: the path or location of what is read.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{path}: can't be read: {error.strerror or error}") from error

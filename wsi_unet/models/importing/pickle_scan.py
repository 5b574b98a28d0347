"""Scanning a pickle without loading it: nothing runs, nothing large is allocated.

A pickle is a program for a small stack machine. The machine here knows the instructions, but none
of the classes and functions that a pickle may name: it never imports or calls one. Those that hold
data (`pickle_names`) become descriptions, such as a tensor's type and shape; a pickle that names
any other, or does to them what isn't done to data, is refused as code. No other reader of pickles
comes after this one: numbers are read from where the descriptions say they lie.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from wsi_unet.models.importing import pickle_names
from wsi_unet.models.importing.pickled import (
    DamagedPickleError,
    Name,
    Opaque,
    Storage,
    TensorInFile,
    abbreviate,
    describe_view,
    is_pair,
    is_plain_dtype,
    plain_pairs,
)
from wsi_unet.models.number_types import is_size

MOST_INSTRUCTIONS = 2_000_000
"""Instructions that are followed; a large network's checkpoint has some ten thousand."""

LONGEST_NAME = 200
"""Characters of the longest name of a class or function."""

MOST_FORBIDDEN = 100
"""Forbidden names that are noted."""


class Readable(Protocol):
    """An open file or mapped memory."""

    def read(self, count: int = ..., /) -> bytes:
        """Return up to `count` bytes."""

    def readline(self) -> bytes:
        """Return the bytes up to the next line feed."""


@dataclass(frozen=True)
class Scan:
    """What a pickle holds.

    Attributes:
        value: the content: dictionaries, lists, tuples, numbers and text as they are, tensors as
            `TensorInFile`, anything else as `Opaque`.
        storages: the storages of its tensors, by key.
        forbidden: what loading it would run, apart from what makes data: names of classes and
            functions, in the order of the file, each once.
    """

    value: Any
    storages: dict[str, Storage]
    forbidden: tuple[str, ...]


def scan_pickle(file: Readable) -> Scan:
    """Follow one pickle to its end, and leave the file at that position.

    Raises:
        DamagedPickleError: it can't be followed, unless it named something forbidden before:
            then that is returned.
    """
    machine = _Machine()
    try:
        value = machine.run(pickletools.genops(cast("Any", file)))
    except DamagedPickleError:
        if not machine.forbidden:
            raise
        value = None
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, RecursionError) as error:
        # From pickletools, on bytes that aren't a pickle; or from the machine, on instructions in
        # an order that makes no sense.
        if not machine.forbidden:
            raise DamagedPickleError(str(error) or type(error).__name__) from error
        value = None
    return Scan(value, machine.storages, tuple(dict.fromkeys(machine.forbidden)))


class _Machine:
    """The stack machine that pickles are programs for; it describes and never calls.

    Attributes:
        storages: the storages found so far, by key.
        forbidden: the names found so far that don't stand for data.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self.forbidden: list[str] = []
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # the stacks below the marks
        self._memo: dict[int, Any] = {}
        self._copied = 0  # items of lists and dictionaries so far

    def run(self, instructions: Iterator[tuple[Any, Any, Any]]) -> Any:
        """Follow the instructions; return what is on the stack at the end."""
        for count, (instruction, argument, _) in enumerate(instructions):
            if count > MOST_INSTRUCTIONS:
                raise DamagedPickleError(f"more than {MOST_INSTRUCTIONS} instructions")
            name = instruction.name
            if name == "STOP":
                return self._stack.pop()
            if name in _LITERALS:
                self._stack.append(argument)
            else:
                _INSTRUCTIONS[name](self, argument)
        raise DamagedPickleError("it has no end")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self, _: Any = None) -> Any:
        return self._stack.pop()

    def mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def pop_mark(self, _: Any = None) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, index: int) -> None:
        self.push(self._memo[index])

    def wrap(self, count: int) -> None:
        """Replace the topmost `count` items by a tuple of them."""
        items = self._stack[-count:]
        del self._stack[-count:]
        self.push(tuple(items))

    def append(self, _: Any) -> None:
        self.extend([self.pop()])

    def extend(self, items: list[Any]) -> None:
        target = self._target("items")
        if isinstance(target, list):
            target.extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def set_items(self, items: list[Any]) -> None:
        target = self._target("items")
        if isinstance(target, dict):
            target.update(plain_pairs(items))

    def build(self, _: Any) -> None:
        """Give an object its state, which isn't needed."""
        self.pop()
        self._target("a state")

    def name(self, argument: str) -> None:
        """Push a class or function; `argument` is its module and name with a blank between."""
        name = ".".join(argument.split(" ", 1))
        if len(name) > LONGEST_NAME:
            raise DamagedPickleError("a class or function whose name is too long")
        if name not in pickle_names.DATA:
            self._forbid(name)
        self.push(Name(name))

    def name_on_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise DamagedPickleError("a name that isn't text")
        self.name(f"{module[: LONGEST_NAME + 1]} {name[: LONGEST_NAME + 1]}")

    def call(self, _: Any = None) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(self._describe_result(function, arguments))

    def call_with_keywords(self, _: Any) -> None:
        self.pop()
        self.call()

    def call_named(self, argument: str) -> None:
        arguments = tuple(self.pop_mark())
        self.name(argument)
        self.push(arguments)
        self.call()

    def call_marked(self, _: Any) -> None:
        function, *arguments = self.pop_mark()
        self.push(function)
        self.push(tuple(arguments))
        self.call()

    def registered(self, argument: int) -> None:
        """Push a class that copyreg would know by a number."""
        self.name(f"copyreg extension-{argument}")

    def storage(self, _: Any) -> None:
        """Push the storage that a persistent id describes."""
        kind, storage_type, key, _, count, *view = self.pop()
        dtype = None
        if isinstance(storage_type, Name):
            dtype = pickle_names.STORAGE_TYPES.get(storage_type.name)
        if kind != "storage" or dtype is None or any(item is not None for item in view):
            raise DamagedPickleError(f"an unknown kind of storage: {abbreviate(storage_type)}")
        if not is_size(count) or not isinstance(key, str):
            raise DamagedPickleError(f"storage {abbreviate(key)} of {abbreviate(count)} numbers")
        storage = Storage(key, dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise DamagedPickleError(f"storage {key[:80]!r} is described twice, differently")
        self.push(storage)

    def _target(self, what: str) -> Any:
        """Return the object that is changed, on top of the stack; a class or function isn't.

        Raises:
            DamagedPickleError: it is a tensor, whose numbers would be others afterwards.
        """
        target = self._stack[-1]
        if isinstance(target, TensorInFile | Storage):
            raise DamagedPickleError(f"a tensor that is given {what} after it was made")
        if isinstance(target, Name):
            self._forbid(f"{target.name} (to give it {what})")
        return target

    def _forbid(self, what: str) -> None:
        if len(self.forbidden) < MOST_FORBIDDEN:
            self.forbidden.append(what)

    def _copy(self, content: Any) -> list[Any]:
        """Return the items of a list or tuple; none of anything else.

        Raises:
            DamagedPickleError: the pickle has copied more than it has instructions.
        """
        if not isinstance(content, list | tuple):
            return []
        self._copied += len(content)
        if self._copied > MOST_INSTRUCTIONS:
            raise DamagedPickleError("it copies the same things again and again")
        return list(content)

    def _describe_result(self, function: Any, arguments: Any) -> Any:
        """Return a description of what calling a class or function would make."""
        if not isinstance(function, Name):
            self._forbid(f"{abbreviate(function)} (to call it)")
            return Opaque("")
        name = function.name
        if name in pickle_names.DICTIONARIES:
            content = arguments[-1] if arguments else ()
            if isinstance(content, dict):
                return content
            pairs = [pair for pair in self._copy(content) if is_pair(pair)]
            return dict(plain_pairs([part for pair in pairs for part in pair]))
        if name in pickle_names.SEQUENCES:
            return self._copy(arguments[0] if arguments else ())
        if name in pickle_names.TENSORS:
            if any(arguments[6:]):  # negated, say: the numbers aren't those of the storage
                raise DamagedPickleError("a tensor whose numbers are stored in another form")
            return describe_view(*arguments[:4])
        if name in pickle_names.PARAMETERS:
            return arguments[0]
        if name == pickle_names.DTYPE and not is_plain_dtype(arguments):
            self._forbid(f"{name} of objects")
        return Opaque(name)


_LITERALS = {
    *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
"""Instructions that push their argument."""

_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": lambda machine, _: machine.push(machine._stack[-1]),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.wrap(1),
    "TUPLE2": lambda machine, _: machine.wrap(2),
    "TUPLE3": lambda machine, _: machine.wrap(3),
    "DICT": lambda machine, _: machine.push(dict(plain_pairs(machine.pop_mark()))),
    "APPEND": _Machine.append,
    "APPENDS": lambda machine, _: machine.extend(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.pop_mark()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "INST": _Machine.call_named,
    "OBJ": _Machine.call_marked,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "EXT1": _Machine.registered,
    "EXT2": _Machine.registered,
    "EXT4": _Machine.registered,
    "BINPERSID": _Machine.storage,
}

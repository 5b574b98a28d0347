"""Scanning a pickle without loading it: nothing runs, nothing large is allocated.

A pickle is a program for a small stack machine. The machine here knows the instructions, but none
of the classes and functions that a pickle may name. Those that PyTorch's checkpoints need become
descriptions (a tensor's type and shape); any other is only noted by name, and nothing is called.
This allow-list is the first of two fences: PyTorch's restricted loader is the second.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from wsi_unet.models.importing.pickled import (
    DamagedPickleError,
    Opaque,
    Storage,
    describe_view,
    is_size,
)
from wsi_unet.models.number_types import ITEM_BYTES

MOST_INSTRUCTIONS = 2_000_000
"""Instructions that are followed; a large network's checkpoint has some ten thousand."""

_STORAGE_TYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}

_TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_HARMLESS = {
    *_STORAGE_TYPES,
    *_TENSORS,
    *_PARAMETERS,
    *(f"torch.{name}" for name in ITEM_BYTES),
    "_codecs.encode",
    "builtins.set",
    "__builtin__.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
}
"""Names that PyTorch's restricted loader allows, and that take no more memory than the file."""


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
        forbidden: names of classes and functions that loading it would run, apart from the
            harmless ones; in the order of the file, each once.
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
        forbidden: the names found so far that aren't harmless.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self.forbidden: list[str] = []
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # the stacks below the marks
        self._memo: dict[int, Any] = {}

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
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(zip(items[::2], items[1::2], strict=True))

    def name(self, argument: str) -> None:
        """Push a class or function; `argument` is its module and name with a blank between."""
        name = ".".join(argument.split(" ", 1))
        if name not in _HARMLESS:
            self.forbidden.append(name)
        self.push(Opaque(name))

    def name_on_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.name(f"{module} {name}")

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
        known = isinstance(storage_type, Opaque) and storage_type.name in _STORAGE_TYPES
        if kind != "storage" or not known or any(item is not None for item in view):
            raise DamagedPickleError(f"an unknown kind of storage: {storage_type}")
        if not is_size(count) or not isinstance(key, str):
            raise DamagedPickleError(f"storage {key!r} of {count!r} numbers")
        storage = Storage(key, _STORAGE_TYPES[storage_type.name], count)
        if self.storages.setdefault(key, storage) != storage:
            raise DamagedPickleError(f"storage {key!r} is described twice, differently")
        self.push(storage)

    def _describe_result(self, function: Any, arguments: Any) -> Any:
        """Return a description of what calling a class or function would make."""
        name = function.name if isinstance(function, Opaque) else repr(type(function))
        if name == "collections.OrderedDict":
            return dict(*arguments)
        if name in _TENSORS:
            return describe_view(*arguments[:4])
        if name in _PARAMETERS:
            return arguments[0]
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
    "DICT": lambda machine, _: machine.push(_dictionary(machine.pop_mark())),
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
    "BUILD": _Machine.pop,  # the state of an object, which isn't needed
    "EXT1": _Machine.registered,
    "EXT2": _Machine.registered,
    "EXT4": _Machine.registered,
    "BINPERSID": _Machine.storage,
}


def _dictionary(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))

"""Mutations of files and folders, as accidents and attackers make them; decided by a seed alone."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

NUMBERS = (
    0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
    (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
"""Numbers at which programs break."""

WORDS = (
    "", " ", "\0", "../../outside", "/dev/zero", "/etc/passwd", "~", "nan", "-1", "1e400", "0x10",
    "a" * 5000, "\x1b[31mred", "\u202eevil", "é", "\ud800", "=1+1", "s3://bucket/key", "zarr.json",
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), [], {}, [[]], [None], {"a": 1}, *WORDS,
)  # fmt: skip
"""Values that a document's reader doesn't expect."""

DEEP = 20_000
"""Levels of nesting beyond what Python's parsers take."""


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Return `data` with one to four changes of bytes, mostly where the structure of files is."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        random.choice(_BYTE_CHANGES)(changed, random)
    return bytes(changed)


def _place(data: bytearray, random: Random) -> int:
    """Return a position: near the start or the end, where headers are, as often as anywhere."""
    size = max(1, len(data))
    near = min(size, 512)
    kind = random.random()
    if kind < 0.4:
        return random.randrange(near)
    return size - 1 - random.randrange(near) if kind < 0.6 else random.randrange(size)


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[_place(data, random)] ^= 1 << random.randrange(8)


def _set_number(data: bytearray, random: Random) -> None:
    width, order = random.choice("BHIQ"), random.choice("<>")
    size = struct.calcsize(order + width)
    if len(data) >= size:
        number = random.choice(NUMBERS) & ((1 << 8 * size) - 1)
        start = min(_place(data, random), len(data) - size)
        data[start : start + size] = struct.pack(order + width, number)


def _copy_piece(data: bytearray, random: Random) -> None:
    source, target = _place(data, random), _place(data, random)
    length = random.choice((1, 2, 4, 8, 12, 20, 64))
    data[target : target + length] = data[source : source + length]


def _cut_end(data: bytearray, random: Random) -> None:
    del data[_place(data, random) :]


def _cut_out(data: bytearray, random: Random) -> None:
    start = _place(data, random)
    del data[start : start + random.choice((1, 2, 8, 100))]


def _put_in(data: bytearray, random: Random) -> None:
    start = _place(data, random)
    data[start:start] = random.randbytes(random.choice((1, 4, 12, 64)))


def _add_end(data: bytearray, random: Random) -> None:
    data += random.randbytes(random.choice((1, 100)))


_BYTE_CHANGES: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip, _flip, _set_number, _set_number, _set_number, _copy_piece, _cut_end, _cut_out, _put_in,
    _add_end,
)  # fmt: skip


def mutate_json(data: bytes, random: Random) -> bytes:
    """Return a JSON document with one to three values, keys or lists changed."""
    document = json.loads(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        document = _change_node(document, random)
    text = json.dumps(document)
    if random.random() < 0.03:
        text = "[" * DEEP + text + "]" * DEEP
    return text.encode("utf-8", "surrogatepass")


def _change_node(document: Any, random: Random) -> Any:
    """Return a document with one node changed; `document` itself where it is a leaf."""
    nodes = [node for node in _containers(document) if node]
    if not nodes or random.random() < 0.02:
        return random.choice(VALUES)
    node = random.choice(nodes)
    key = random.choice([*node] if isinstance(node, dict) else range(len(node)))
    kind = random.randrange(8)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[random.choice(WORDS)] = node.pop(key)
    elif kind == 2 and isinstance(node, list):
        node += [node[key]] * random.choice((1, 1000))
    elif kind == 3 and isinstance(node[key], int | float):
        number = node[key]
        between = number + 0.5 if abs(number) < 2**1000 else 0.5
        node[key] = random.choice((-number, number * 2**20, between, str(number)))
    elif kind == 4 and isinstance(node[key], str):
        node[key] = random.choice((node[key] + "x", node[key].upper(), "../" + node[key]))
    else:
        node[key] = random.choice(VALUES)
    return document


def _containers(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    inside = [found for child in children for found in _containers(child)]
    return [node, *inside] if isinstance(node, dict | list) else inside


def mutate_text(data: bytes, random: Random) -> bytes:
    """Return a text (XML, CSV, TOML) with a line, a word or a number changed."""
    lines = data.decode(errors="surrogateescape").splitlines(keepends=True) or [""]
    number = random.randrange(len(lines))
    kind = random.randrange(6)
    if kind == 0:
        del lines[number]
    elif kind == 1:
        lines[number:number] = [lines[number]] * random.choice((1, 50))
    elif kind == 2:
        lines[number] = lines[number].replace(random.choice(",;\"'<>=[]"), random.choice(WORDS), 1)
    else:
        words = lines[number].split(" ")
        words[random.randrange(len(words))] = str(random.choice(VALUES))
        lines[number] = " ".join(words)
    return "".join(lines).encode("utf-8", "surrogatepass" if kind > 1 else "surrogateescape")


def mutate_file(path: Path, random: Random) -> None:
    """Change a file: by its format in half of the cases, else by its bytes."""
    data = path.read_bytes()
    packed = path.suffix == ".gz" and random.random() < 0.8
    if packed:
        data = gzip.decompress(data)
    by_format = random.random() < 0.5
    try:
        if by_format and path.name.removesuffix(".gz").endswith(("json", ".zattrs", ".zarray")):
            data = mutate_json(data, random)
        elif by_format and path.suffix in (".xml", ".csv", ".toml"):
            data = mutate_text(data, random)
        else:
            data = mutate_bytes(data, random)
    except (ValueError, RecursionError):  # what is there isn't of that format any more
        data = mutate_bytes(data, random)
    path.write_bytes(gzip.compress(data) if packed else data)


def mutate_tree(root: Path, victim: Path, random: Random) -> None:
    """Change a file or a folder: its content, or what is there in its place.

    Args:
        root: the file or folder.
        victim: a folder of somebody else's, for links to lead to.
        random: decides what happens.
    """
    inside = sorted(path for path in root.rglob("*") if not path.is_symlink())
    files = [path for path in [root, *inside] if path.is_file()]
    if root.is_file() or (files and random.random() < 0.7):
        for _ in range(random.choice((1, 1, 2))):
            # Documents decide more than pixels do.
            documents = [path for path in files if "json" in path.name or path.name[:1] == "."]
            path = random.choice(documents if documents and random.random() < 0.7 else files)
            mutate_file(path, random)
        return
    path = random.choice(inside or [root])
    kind = random.randrange(8)
    if kind == 0:
        _remove(path)
    elif kind == 1:
        _remove(path)
        path.symlink_to(random.choice((victim, victim / "thesis.txt", "/dev/zero", "nowhere")))
    elif kind == 2:
        _remove(path)
        os.mkfifo(path)
    elif kind == 3:
        _remove(path)
        path.mkdir()
    elif kind == 4:
        _remove(path)
        path.write_bytes(random.randbytes(random.choice((0, 1, 3000))))
    elif kind == 5:
        other = random.choice(inside)
        if other.is_file() and path.is_file():
            path.write_bytes(other.read_bytes())
    elif kind == 6:
        path.rename(path.with_name(path.name + random.choice(("x", "\n", " "))))
    else:
        (path if path.is_dir() else path.parent).joinpath("thesis").symlink_to(victim)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()

"""Untrusted checkpoints are read without running code or allocating memory."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from wsi_unet.errors import ModelError
from wsi_unet.models.importing.checkpoint_file import is_checkpoint, open_checkpoint


class Runs:
    """An object that runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return dict(network.state_dict())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(weights(), path)
    return path


def rewritten(source: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> Path:
    """Copy a zip archive, each member changed or left out."""
    target = source.with_name("rewritten.pth")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            changed = change(name, old.read(name))
            if changed is not None:
                new.writestr(*changed)
    return target


def pickled_call(module: str, name: str, *arguments: bytes) -> bytes:
    """Return the instructions that call a class or function, without their end."""
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: OrderedDict(state),
        lambda state: {"state_dict": state, "epoch": 3, "lr": 0.1},
        lambda state: {"model": {"state_dict": state}, "optimizer": {"step": [1, 2.5, "x"]}},
        lambda state: {**state, "mask_values": [0, 1]},
        lambda state: {"module._orig_mod." + name: t for name, t in state.items()},
        lambda state: [None, (state, 1)],
        lambda state: {name: nn.Parameter(t, requires_grad=False) for name, t in state.items()},
    ],
)
def test_a_state_dict_is_found_wherever_it_is(
    wrap: Callable[[dict[str, torch.Tensor]], Any], legacy: bool, tmp_path: Path
) -> None:
    path = tmp_path / "weights.ckpt"
    torch.save(wrap(weights()), path, _use_new_zipfile_serialization=not legacy)
    file = open_checkpoint(path)
    (prefix,) = {name.removesuffix("0.bias") for name in file.tensors if name.endswith("0.bias")}
    loaded = file.load(file.tensors)
    assert loaded.keys() == {prefix + name for name in weights()}
    for name, tensor in weights().items():
        torch.testing.assert_close(loaded[prefix + name], tensor, rtol=0, atol=0)


def test_safetensors_are_read_with_integers_too(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "weights.safetensors")
    file = open_checkpoint(tmp_path / "weights.safetensors")
    assert file.tensors["1.num_batches_tracked"].dtype == "int64"
    assert torch.equal(file.load(["0.weight"])["0.weight"], weights()["0.weight"])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "beside",
    [
        np.float64(0.9),
        {"best": np.float32(0.5), "counts": np.arange(5), "names": np.array(["a", "b"])},
        {
            "loss": defaultdict(list, {"train": [np.float64(1)] * 9}),
            "seen": {1, 2},
            "q": deque([1]),
        },
        argparse.Namespace(lr=0.1, folder=Path("/data"), flags={"x": (None, True)}),
        SimpleNamespace(started=datetime.datetime(2024, 5, 6, 7, 8), spent=datetime.timedelta(1)),
        [
            Counter("abca"),
            OrderedDict(a=1),
            frozenset([3]),
            complex(1, 2),
            range(4),
            Decimal("0.1"),
        ],
        {"rng": np.random.RandomState(0).get_state(), "device": torch.device("cpu")},
        {"types": [torch.float16, np.dtype("float64"), int, dict], (0, 1): "axes", 7: b"bytes"},
    ],
)
def test_data_beside_the_weights_is_read_past(beside: Any, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    content = {"epoch": 3, "beside": beside, "state_dict": weights()}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    file = open_checkpoint(path)
    assert file.tensors.keys() == {f"state_dict.{name}" for name in weights()}
    assert {name.partition(".")[0] for name in file.others} == {"epoch", "beside"}
    loaded = file.load(["state_dict.0.weight"])
    assert torch.equal(loaded["state_dict.0.weight"], weights()["0.weight"])


@pytest.mark.parametrize("core", ["core", "_core"])
def test_numbers_of_either_numpy_are_read_past(core: str, tmp_path: Path) -> None:
    dtype = pickled_call("numpy", "dtype", text("f8"), b"I00\n", b"I01\n")
    dtype += b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    number = pickled_call("_codecs", "encode", text("\x00" * 8), text("latin1"))
    scalar = pickled_call(f"numpy.{core}.multiarray", "scalar", dtype, number)
    torch.save({"beside": None, **weights()}, tmp_path / "good.pth")
    path = rewritten(
        tmp_path / "good.pth",
        lambda name, data: (name, data.replace(b"N", scalar, 1) if name[-3:] == "pkl" else data),
    )
    file = open_checkpoint(path)
    assert (file.tensors.keys(), file.others) == (weights().keys(), ("beside",))


def test_what_holds_itself_or_doubles_is_looked_into_once(tmp_path: Path) -> None:
    ring: dict[str, Any] = {"a": torch.zeros(2)}
    ring["again"] = ring
    doubled: Any = [torch.ones(1)]
    for _ in range(60):
        doubled = (doubled, doubled)
    torch.save({"ring": ring, "doubled": doubled, "ring2": ring}, tmp_path / "a.pth")
    assert list(open_checkpoint(tmp_path / "a.pth").tensors) == ["ring.a"]


def test_shared_and_strided_tensors_are_views(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    torch.save({"a": whole.t(), "b": whole[1:3, ::2]}, tmp_path / "a.pth")
    loaded = open_checkpoint(tmp_path / "a.pth").load(["a", "b"])
    assert torch.equal(loaded["a"], whole.t())
    assert torch.equal(loaded["b"], whole[1:3, ::2])


@pytest.mark.parametrize(
    ("how", "protocol"),
    [
        ("bare", 0),
        ("bare", 1),
        *((how, n) for how in ("bare", "archive", "legacy") for n in (2, 4)),
    ],
)
def test_code_is_named_and_not_run(how: str, protocol: int, tmp_path: Path) -> None:
    path, witness = tmp_path / "evil.pth", tmp_path / "ran"
    content = {"state_dict": weights(), "extra": Runs(f"touch {witness}")}
    if how == "bare":
        path.write_bytes(pickle.dumps(Runs(f"touch {witness}"), protocol=protocol))
    else:
        torch.save(
            content,
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=how == "archive",
        )
    with pytest.raises(ModelError, match=r"names posix\.system, and loading it would run code"):
        open_checkpoint(path)
    assert not witness.exists()


def test_code_is_named_even_where_the_pickle_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(b"\x80\x02cbuiltins\nexec\nq\x00Q")
    with pytest.raises(ModelError, match=r"names builtins\.exec"):
        open_checkpoint(path)


SYSTEM = pickled_call("os", "system", text("touch ran"))

ATTACKS = {
    "inside the arguments of an allowed call": (
        pickled_call("collections", "OrderedDict", SYSTEM),
        r"os\.system",
    ),
    "inside the arguments of arguments": (
        pickled_call("builtins", "set", b"(" + pickled_call("builtins", "list", SYSTEM) + b"l"),
        r"os\.system",
    ),
    "as the state of an allowed object": (
        pickled_call("argparse", "Namespace") + b"}" + text("a") + SYSTEM + b"sb",
        r"os\.system",
    ),
    "as the state of an allowed class itself": (
        b"cargparse\nNamespace\n}" + text("__setattr__") + b"cbuiltins\nset\nsb",
        r"argparse\.Namespace \(to give it a state\)",
    ),
    "as an item of an allowed class": (
        b"ccollections\nOrderedDict\n" + text("a") + b"Ns",
        r"collections\.OrderedDict \(to give it items\)",
    ),
    "what a call returns is called": (
        pickled_call("types", "SimpleNamespace") + b"(tR",
        r"Opaque \(to call it\)",
    ),
    "an array of objects": (
        pickled_call("numpy", "dtype", text("O8"), b"I00\n", b"I01\n"),
        r"numpy\.dtype of objects",
    ),
    "an array of objects by another name": (
        pickled_call("numpy", "dtype", text("object")),
        r"numpy\.dtype of objects",
    ),
    "a scalar of a class": (
        pickled_call(
            "numpy.core.multiarray", "scalar", pickled_call("numpy", "dtype", b"cos\nsystem\n")
        ),
        r"os\.system",
    ),
    "a pickle in bytes": (
        pickled_call("torch.storage", "_load_from_bytes", text("x")),
        r"torch\.storage\._load_from_bytes",
    ),
    "a pickle in a pickle": (pickled_call("_pickle", "loads", text("x")), r"_pickle\.loads"),
    "an attribute of what is allowed": (
        text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93)R",
        r"collections\.OrderedDict\.__init__\.__globals__",
    ),
    "a name out of the memo": (
        text("os") + b"q\x00" + text("system") + b"q\x010h\x00h\x01\x93(" + text("ls") + b"tR",
        r"os\.system",
    ),
    "a function that looks like data": (
        pickled_call("builtins", "getattr", text("a"), text("b")),
        r"builtins\.getattr",
    ),
    "by a number": (b"\x82\x01)R", r"copyreg\.extension-1"),
}


@pytest.mark.parametrize("kind", ["beside", "bare"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_named_and_refused(attack: str, kind: str, tmp_path: Path) -> None:
    instructions, named = ATTACKS[attack]
    pickled = b"\x80\x02" + instructions + b"."
    path = tmp_path / "evil.pth"
    if kind == "bare":
        path.write_bytes(pickled)
    else:
        torch.save({"beside": None, **weights()}, tmp_path / "good.pth")
        beside = pickled[2:-1]

        def attacked(name: str, data: bytes) -> tuple[str, bytes]:
            changed = data.replace(b"N", beside, 1) if name.endswith("data.pkl") else data
            return name, changed

        path = rewritten(tmp_path / "good.pth", attacked)
    with pytest.raises(ModelError, match=rf"names .*{named}.*and loading it would run code"):
        open_checkpoint(path)
    assert not Path("ran").exists()


def test_torch_storages_of_other_classes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        pickled = b"\x80\x02(" + text("storage") + b"cbuiltins\nset\n" + text("0") * 2 + b"K\x01tQ."
        archive.writestr("evil/data.pkl", pickled)
    with pytest.raises(ModelError, match="an unknown kind of storage"):
        open_checkpoint(path)


def test_a_pickled_network_is_distinguished_from_its_state(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Conv2d(1, 1, 1)), tmp_path / "network.pth")
    with pytest.raises(ModelError, match=r"whole pickled network.*state_dict\(\) alone"):
        open_checkpoint(tmp_path / "network.pth")


def test_programs_are_named(tmp_path: Path) -> None:
    network = nn.Conv2d(1, 1, 1).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, 4, 4)), tmp_path / "a.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match=r"TorchScript program.*`trust=True`"):
        open_checkpoint(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "b.pt2", "w") as archive:
        archive.writestr("b/archive_format", "pt2")
    with pytest.raises(ModelError, match=r"torch\.export program.*`trust=True`"):
        open_checkpoint(tmp_path / "b.pt2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello", "an unknown kind of file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (b"\x08\x07\x12\x07pytorch", "ONNX"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (bytes(257) + b"ustar\x00" + bytes(300), "tar archive"),
    ],
)
def test_other_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        open_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "weights/../../evil", "a\\evil"])
def test_members_that_lead_out_of_the_archive_are_refused(checkpoint: Path, name: str) -> None:
    with zipfile.ZipFile(checkpoint, "a") as archive:
        archive.writestr(name, b"")
    with pytest.raises(ModelError, match="leads out of it"):
        open_checkpoint(checkpoint)


def test_compressed_members_are_refused(checkpoint: Path) -> None:
    with zipfile.ZipFile(checkpoint, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data/99", bytes(10**7))
    assert checkpoint.stat().st_size < 10**6
    with pytest.raises(ModelError, match="data/99 is compressed"):
        open_checkpoint(checkpoint)


def test_a_storage_that_is_not_as_long_as_declared_is_refused(checkpoint: Path) -> None:
    longer = rewritten(
        checkpoint,
        # 4 kernels of 3·3·3 numbers become four thousand million
        lambda name, data: (name, data.replace(b"Kl", b"J\x00\x00\x00\x70")),
    )
    with pytest.raises(ModelError, match="storage 0 should be 1879048192 float32 numbers"):
        open_checkpoint(longer)
    missing = rewritten(
        checkpoint, lambda name, data: None if name.endswith("data/0") else (name, data)
    )
    with pytest.raises(ModelError, match="there is nothing"):
        open_checkpoint(missing)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_negated_tensor_is_refused(legacy: bool, tmp_path: Path) -> None:
    """Its storage holds other numbers than it."""
    path = tmp_path / "weights.pth"
    tensor = torch.complex(torch.ones(4), torch.ones(4)).conj().imag
    assert tensor.is_neg()
    torch.save({"weight": tensor}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match="stored in another form"):
        open_checkpoint(path)


def test_a_tensor_that_is_changed_after_it_was_made_is_refused(checkpoint: Path) -> None:
    def change(name: str, data: bytes) -> tuple[str, bytes]:
        if name.endswith("data.pkl"):
            hooks = data.index(b")R", data.index(b"_rebuild_tensor_v2")) + 2
            made = data.index(b"R", hooks) + 1
            data = data[:made] + b"K\x00G?\xf0\x00\x00\x00\x00\x00\x00s" + data[made:]
        return name, data

    with pytest.raises(ModelError, match="a tensor that is given items"):
        open_checkpoint(rewritten(checkpoint, change))


def test_numbers_without_their_checksum_are_refused(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    numbers = weights()["0.weight"].numpy().tobytes()
    assert content.count(numbers) == 1
    checkpoint.write_bytes(content.replace(numbers, numbers[:-1] + bytes([numbers[-1] ^ 1])))
    file = open_checkpoint(checkpoint)
    with pytest.raises(ModelError, match="storage 0 aren't those that were written"):
        file.load(["0.weight"])


@pytest.mark.parametrize("wrap", [b"", b"\x85"])
def test_long_text_as_a_key_is_used_once_only(checkpoint: Path, wrap: bytes) -> None:
    """Showing these 8 MB 20 thousand times would take minutes."""

    def change(name: str, data: bytes) -> tuple[str, bytes]:
        long = b"B" + struct.pack("<I", 1 << 23) + bytes(1 << 23) + b"q\x010"
        nested = (b"}h\x01" + wrap + b"]s") * 20_000
        return name, b"\x80\x02](" + long + nested + b"e." if name.endswith("data.pkl") else data

    with pytest.raises(ModelError, match="holds no tensors by name"):
        open_checkpoint(rewritten(checkpoint, change))


def test_a_safetensors_header_of_any_length_is_known(tmp_path: Path) -> None:
    """Its first byte is "<" with 60 bytes, as a web page's is."""
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(60)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", 60) + header + struct.pack("<f", 2.5))
    assert open_checkpoint(path).load(["a"])["a"].tolist() == [2.5]


@pytest.mark.parametrize(
    "shape",
    [
        ",".join(["9" * 4200] * 3000),  # whose product would take an hour
        "9" * 5000,
        "true",
        "0,4611686018427387903,4611686018427387903",
        ",".join("1" * 100),
    ],
    ids=["product", "digits", "type", "empty", "axes"],
)
def test_absurd_shapes_in_safetensors_are_refused(tmp_path: Path, shape: str) -> None:
    header = f'{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}}}'.encode()
    if shape.startswith("0"):
        header = header.replace(b"[0,4]", b"[0,0]")
    path = tmp_path / "weights.safetensors"
    path.write_bytes(
        struct.pack("<Q", len(header)) + header + bytes(0 if b"[0,0]" in header else 4)
    )
    with pytest.raises(ModelError, match=r"damaged|a tensor of the shape"):
        open_checkpoint(path)


def test_a_legacy_storage_is_held_against_the_file(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(weights(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"Kl", b"J\x00\x00\x00\x70"))
    with pytest.raises(ModelError, match="should be 1879048192 float32 numbers"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((10**6, 10**6), (0, 0)), ((2, 2), (10**9, 1)), ((109,), (1,)), ((-1,), (1,)), ((1,), ())],
)
def test_shapes_that_a_storage_has_no_numbers_for_are_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], tmp_path: Path
) -> None:
    class Tensor:
        def __reduce__(self) -> Any:
            storage = weights()["0.weight"].reshape(-1).storage
            rebuild = torch._utils._rebuild_tensor_v2
            return rebuild, (storage(), 0, shape, strides, False, OrderedDict())  # type: ignore[no-untyped-call]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TypedStorage is deprecated
        torch.save({"a": Tensor()}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="a tensor of the shape"):
        open_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo index that C's unpickler makes room for
        b"\x80\x05\x8e" + struct.pack("<Q", 2**40) + b"x.",  # bytes that aren't there
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"x.",
        b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R.",
        # copies of one list, as many as it has items
        b"\x80\x02(" + b"N" * 3000 + b"lq\x00(" + b"cbuiltins\nset\nh\x00\x85R" * 3000 + b"l.",
        # a tuple of two tuples of two tuples …, as a key, a name and a shape
        b"\x80\x02)" + b"2\x86" * 99 + b"q\x00}h\x00Ns.",
        b"\x80\x02)" + b"2\x86" * 99 + b"2\x93.",
        b"\x80\x02)" + b"2\x86" * 99 + b"Q.",
    ],
)
def test_pickles_that_ask_for_memory_get_none(pickled: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bomb/data.pkl", pickled)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            open_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def safetensors(header: dict[str, Any] | bytes, length: int | None = None, data: int = 16) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (safetensors({}, length=2**60), "not a safetensors file"),
        (safetensors(b"{" * 50), "damaged safetensors header"),
        (safetensors({"__metadata__": [1]}), "damaged safetensors header"),
        (safetensors({"__metadata__": None, "a": 1}), "damaged safetensors header"),
        (safetensors({"a": None}), "damaged safetensors header"),
        (
            safetensors({"a": {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 16]}}),
            "should take 8589934592 bytes",
        ),
        (
            safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**40]}}),
            "should take 16 bytes",
        ),
        (
            safetensors({"a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}),
            "should be",
        ),
        (
            safetensors({"a": {"dtype": "C64", "shape": [2], "data_offsets": [0, 16]}}),
            "stored as C64",
        ),
    ],
)
def test_absurd_safetensors_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        open_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("text", [b"12345", b'"abc"', b"null", b"[1, 2]", b"true"])
def test_a_header_that_is_no_object_is_damaged(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors(text))
    with pytest.raises(ModelError, match="damaged safetensors header"):
        is_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_cut_file_is_refused_wherever_it_is_cut(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save(weights(), path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 53):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            open_checkpoint(path)


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_refused_or_loads_as_tensors(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "damaged.pth"
    legacy = data.draw(st.booleans())
    torch.save(weights(), path, _use_new_zipfile_serialization=not legacy)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(ModelError):
        file = open_checkpoint(path)
        loaded = file.load(file.tensors)
        assert all(isinstance(tensor, torch.Tensor) for tensor in loaded.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "no tensors by name"),
        (torch.zeros(3), "no tensors by name"),
        ({}, "no tensors by name"),
        ({"a.b": torch.zeros(1), "a": {"b": torch.zeros(1)}}, "two tensors called a.b"),
        ({"a" * 999: torch.zeros(1)}, "no tensors by name"),
    ],
)
def test_files_without_a_state_dict_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ModelError, match=message):
        open_checkpoint(tmp_path / "a.pth")


def test_a_real_legacy_file_loads_as_tensors(shared_data: Path) -> None:
    file = open_checkpoint(shared_data / "foreign_models" / "cremi_dunet_em" / "state.nn")
    loaded = file.load(file.tensors)
    assert loaded["output.conv.weight"].shape == (1, 241, 3, 3)
    assert all(bool(tensor.isfinite().all()) for tensor in loaded.values())

"""Models on disk: they are read as written, and every kind of damage has its own message."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wsi_unet.errors import ModelError, OutputError
from wsi_unet.locations import Location
from wsi_unet.models.model import Model, bundled_models, load_model, read_spec
from wsi_unet.models.networks.build import build_network
from wsi_unet.models.saving import save_model
from wsi_unet.models.spec import ModelSpec

MakeSpec = Callable[..., ModelSpec]
MakeModel = Callable[..., Model]


def test_folder_and_file_hold_the_same_model(make_model: MakeModel, tmp_path: Path) -> None:
    folder = make_model(norm="batch")
    single = make_model(path=tmp_path / "one.safetensors", norm="batch")
    assert folder.sha256 == single.sha256
    assert load_model(folder.path).sha256 == folder.sha256
    assert folder.spec == single.spec == read_spec(single.path)
    assert {p.name for p in folder.path.iterdir()} == {"model.json", "weights.safetensors"}
    image = torch.rand(1, 3, 60, 60)
    networks = [folder.build(), single.build()]
    assert torch.equal(networks[0](image), networks[1](image))
    assert not networks[0].training
    assert pickle.loads(pickle.dumps(folder)) == folder


def test_hash_follows_what_changes_pixels_and_nothing_else(
    make_model: MakeModel, tmp_path: Path
) -> None:
    first = make_model()
    renamed = {
        "name": "other",
        "classes": [{"name": n, "color": "#ffffff"} for n in "xyz"],
        "background": "x",
        "description": "text",
        "metrics": {"dice": 1},
        "license": "MIT",
    }
    same = make_model(renamed, path=tmp_path / "same", dropout=0.5)
    assert same.sha256 == first.sha256
    hashes = {first.sha256}
    changes: list[dict[str, object]] = [
        {"background": "b"},
        {"background": None},
        {"mpp": 0.25},
        {"mpp": None},
        {"channel_order": "bgr"},
        {"scaling": {"mean": (0.7, 0.6, 0.4), "std": (0.2, 0.3, 0.25)}},
    ]
    for index, change in enumerate(changes):
        hashes.add(make_model(change, path=tmp_path / str(index)).sha256)
    hashes.add(make_model(path=tmp_path / "same padding", padding="same").sha256)
    network = first.build()
    with torch.no_grad():
        next(network.parameters())[0, 0, 0, 0] += 1e-6
    hashes.add(save_model(network, first.spec, tmp_path / "trained").sha256)
    assert len(hashes) == len(changes) + 3


@pytest.mark.parametrize("weights", ["float16", "bfloat16"])
def test_small_weights_come_back_as_float32(
    make_model: MakeModel, tmp_path: Path, weights: str
) -> None:
    model = make_model()
    network = model.build()
    small = save_model(network, model.spec, tmp_path / "small", weights=weights)  # type: ignore[arg-type]
    size = {m: (m.path / "weights.safetensors").stat().st_size for m in (model, small)}
    assert size[small] < 0.6 * size[model]
    for mine, theirs in zip(small.build().parameters(), network.parameters(), strict=True):
        assert mine.dtype == torch.float32
        rounded = theirs.to(getattr(torch, weights)).to(torch.float32)
        assert torch.equal(mine, rounded)


def test_weights_that_overflow_float16_are_refused(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    network = model.build()
    torch.nn.init.constant_(network.get_parameter("head.weight"), 1e6)
    with pytest.raises(ModelError, match=r"head\.weight holds NaN or infinite"):
        save_model(network, model.spec, tmp_path / "small", weights="float16")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_writing_refuses_to_overwrite_unless_asked(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    network = model.build()
    with pytest.raises(OutputError, match="exists; choose another path"):
        save_model(network, model.spec, model.path)
    again = save_model(network, model.spec, model.path, overwrite=True)
    assert again == model
    precious = tmp_path / "results"
    precious.mkdir()
    (precious / "data.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not a model"):
        save_model(network, model.spec, precious, overwrite=True)
    assert (precious / "data.txt").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"model", "results"}


def test_a_model_that_cannot_be_replaced_stays(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    network = model.build()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail)
        with pytest.raises(OutputError, match="No space left"):
            save_model(network, model.spec, model.path, overwrite=True)
    assert load_model(model.path) == model


def test_a_network_that_is_not_the_specs_is_not_written(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    network = build_network(make_spec(depth=1).architecture)
    with pytest.raises(ModelError, match="lacks the weights contracting"):
        save_model(network, make_spec(depth=2), tmp_path / "some" / "folder" / "model")
    assert not list(tmp_path.iterdir())


def test_model_changed_on_disk_is_noticed(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    edit_weights(model.path, lambda tensors: tensors["head.bias"].add_(1))
    with pytest.raises(ModelError, match="has changed since it was loaded"):
        model.build()


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "weights.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def edit_spec(folder: Path, **fields: object) -> None:
    file = folder / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def refuse(source: object, message: str) -> None:
    """Assert that loading fails with one line that names the path and matches `message`."""
    with pytest.raises(ModelError, match=message) as caught:
        load_model(source)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert Path(str(source)).name in str(caught.value)


def test_unknown_names() -> None:
    refuse("no-such-model", "neither a path nor a bundled model")


def test_paths_are_given_in_any_form(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("model", "~/model", Location.parse("model"), Path("model")):
        assert load_model(place) == model
        assert load_model(place).path == tmp_path / "model"
    with pytest.raises(ModelError, match=r"s3://bucket/model is a URL; .* copy it there first"):
        load_model("s3://bucket/model")
    with pytest.raises(ModelError, match="is a URL"):
        save_model(model.build(), model.spec, "s3://bucket/model")


def test_bundled_models_are_found_by_name() -> None:
    for name, path in bundled_models().items():
        assert read_spec(name) == read_spec(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("head.bias"), r"lacks the weights head\.bias;"),
        (lambda t: [t.pop("head.bias"), t.pop("head.weight")], r"head\.bias and 1 more"),
        (lambda t: t.update(extra=torch.zeros(1)), "beyond what its spec describes, .* extra;"),
        (lambda t: t.update({"head.bias": torch.zeros(4)}), r"shape \[4\], its spec asks .* \[3\]"),
        (lambda t: t["head.bias"].fill_(torch.nan), r"head\.bias holds NaN"),
        (lambda t: t["head.weight"].fill_(torch.inf), r"head\.weight holds NaN or infinite"),
        (lambda t: t.update({"head.bias": torch.zeros(3, dtype=torch.int64)}), "stored as I64"),
    ],
)
def test_wrong_weights(
    make_model: MakeModel, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    path = make_model().path
    edit_weights(path, change)
    refuse(path, message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format_version": 7}, "format_version: 7 is not a version"),
        ({"background": "nothing"}, "background: 'nothing' is none of"),
        ({"classes": [{"name": "a", "color": "#000000"}] * 3}, "'a' is there 3 times"),
        ({"mpp": "half"}, "mpp: .*valid number"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"architecture": {"depth": 2, "base_width": 4, "classes": 4}}, "3 names .* 4 outputs"),
        ({"architecture": {"depth": 2, "base_width": 8, "classes": 3}}, "shape"),
        ({"architecture": {"depth": 99}}, "architecture.depth: .* less than or equal to 6"),
    ],
)
def test_wrong_specs(make_model: MakeModel, fields: dict[str, object], message: str) -> None:
    path = make_model().path
    edit_spec(path, **fields)
    refuse(path, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "not a model spec"),
        ('{"name": "x"}', "no format_version"),
        ('{"format_version": 1}', "Field required"),
        ("{" + " " * 2**20, "larger than"),
    ],
)
def test_broken_json(make_model: MakeModel, text: str, message: str) -> None:
    path = make_model().path
    (path / "model.json").write_text(text)
    refuse(path, message)


def test_spec_that_is_not_text(make_model: MakeModel) -> None:
    path = make_model().path
    (path / "model.json").write_bytes(b"\xff\xfe\x00")
    refuse(path, "can't read")


class Bomb:
    """An object whose unpickling leaves a trace."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return Path.write_text, (Path("exploded"), "!")  # type: ignore[return-value]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_are_never_loaded(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_model().path
    weights = path / "weights.safetensors"
    weights.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    refuse(path, "is a pickle, which can run code")
    torch.save({"head.bias": torch.zeros(3)}, weights)
    refuse(path, "zip archive as torch.save writes it")
    torch.save({"a": torch.zeros(3)}, weights, _use_new_zipfile_serialization=False)
    refuse(path, "is a pickle")
    refuse(weights, "is a pickle")
    weights.rename(path / "weights.pth")
    refuse(path, r"no weights\.safetensors \(found weights\.pth; only safetensors")
    assert not Path("exploded").exists()


def test_damaged_files(make_model: MakeModel, tmp_path: Path) -> None:
    single = make_model(path=tmp_path / "m.safetensors").path
    sound = single.read_bytes()
    length = int.from_bytes(sound[:8], "little")

    def header(content: object, data: bytes = b"") -> bytes:
        text = json.dumps(content).encode()
        return struct.pack("<Q", len(text)) + text + data

    for damaged, message in (
        (b"", "not a safetensors file"),
        (sound[:100], "not a safetensors file"),
        (sound[:-1], "get the file again"),
        (sound + b"\0", "should be .* bytes long"),
        (struct.pack("<Q", 2**62) + sound[8:], "header length of 4611686018427387904"),
        (sound[:8] + b"x" * length + sound[8 + length :], "damaged safetensors header"),
        (header([]), "damaged"),
        (header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"), "8 bytes"),
        (header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), "damaged"),
        (
            header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
            "take 4 bytes",
        ),
        (header({}), "weights but no model spec"),
        (b"\x89PNG" + bytes(1000), "not a safetensors file|damaged"),
    ):
        single.write_bytes(damaged)
        refuse(single, message)


def test_folder_without_a_model(tmp_path: Path) -> None:
    refuse(tmp_path, r"isn't a model: it has no model\.json")

"""Models on disk: safetensors weights and a JSON spec, in a folder or in a single file.

    nuclei-he/model.json            the spec (wsi_unet.models.spec)
    nuclei-he/weights.safetensors   the weights

or one `.safetensors` file that carries the spec as text in its header, under the key `wsi_unet`.
Nothing that can run code is ever loaded.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from wsi_unet.errors import ModelError, OutputError
from wsi_unet.models.spec import ModelSpec
from wsi_unet.models.weights_file import (
    TORCH_NAMES,
    Header,
    TensorEntry,
    read_header,
    read_tensor,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

SPEC_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
METADATA_KEY = "wsi_unet"
LARGEST_SPEC = 2**20

WeightType = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Model:
    """A checked model on disk. Small and picklable: the weights stay in their file.

    Attributes:
        spec: what the model is.
        path: its folder or file.
        sha256: of the weights and of what else decides the labels (see `ModelSpec.pixel_fields`);
            the same for the folder and the single-file form, whatever the names and colours.
    """

    spec: ModelSpec = field(hash=False)  # its metrics are a dictionary
    path: Path
    sha256: str

    def build(self) -> nn.Module:
        """Return the network with its weights: float32, evaluation mode, on the CPU.

        Raises:
            ModelError: if the files have changed since the model was loaded, or aren't sound.
        """
        weights, sha256 = _read_weights(self.path, self.spec)
        if sha256 != self.sha256:
            raise ModelError(f"{self.path} has changed since it was loaded; start again")
        return _build(self.spec, weights)


def load_model(source: str | Path) -> Model:
    """Find a model and check all of it: spec, names, shapes and values of the weights.

    Args:
        source: name of a bundled model, or the path of a model's folder or .safetensors file.

    Raises:
        ModelError: if there is no such model or something in it is wrong.
    """
    path = _find(source)
    spec = read_spec(path)
    return Model(spec, path, _check_weights(path, spec))


def bundled_models() -> dict[str, Path]:
    """Return the models that come with the package, by name."""
    folder = Path(__file__).parent / "bundled"
    return {found.parent.name: found.parent for found in sorted(folder.glob(f"*/{SPEC_FILE}"))}


def read_spec(source: str | Path) -> ModelSpec:
    """Read a model's spec alone, without its weights (and without torch).

    Raises:
        ModelError: if it isn't there or isn't valid.
    """
    path = _find(source)
    if not path.is_dir():
        text = read_header(path).metadata.get(METADATA_KEY)
        if text is None:
            raise ModelError(
                f"{path} holds weights but no model spec (header key {METADATA_KEY!r}); "
                f"give a folder with {SPEC_FILE} and {WEIGHTS_FILE} instead"
            )
        return _parse_spec(text, str(path))
    file = path / SPEC_FILE
    try:
        if file.stat().st_size > LARGEST_SPEC:
            raise ModelError(f"{file} is larger than {LARGEST_SPEC} bytes: not a model spec")
        return _parse_spec(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} is no model: it has no {SPEC_FILE} (a model is a folder with {SPEC_FILE} "
            f"and {WEIGHTS_FILE}, or one .safetensors file)"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"can't read {file}: {error}") from error


def save_model(
    network: nn.Module,
    spec: ModelSpec,
    path: str | Path,
    *,
    weights: WeightType = "float32",
    overwrite: bool = False,
) -> Model:
    """Write a model: a folder, or a single file where `path` ends in .safetensors.

    The model appears whole or not at all, and is read back and checked before this returns.

    Args:
        network: the trained network; its state must be that of `spec.architecture.build()`.
        spec: what to say about it.
        path: where to.
        weights: number type in the file; 16 bits halve its size.
        overwrite: whether an existing model there may be replaced.

    Raises:
        OutputError: if something is there already (and isn't a model, or `overwrite` is off).
        ModelError: if the weights don't fit the spec or aren't finite in that number type.
    """
    target = Path(path)
    _check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".partial", dir=target.parent) as folder:
        new = Path(folder) / target.name
        _write(network, spec, new, weights)
        checked = load_model(new.absolute())
        if target.is_dir():
            target.rename(Path(folder) / "replaced")
        new.replace(target)
    return replace(checked, path=target.absolute())


def _write(network: nn.Module, spec: ModelSpec, path: Path, weights: WeightType) -> None:
    import torch
    from safetensors.torch import save_file

    dtype = getattr(torch, weights)
    tensors = {
        name: tensor.detach().cpu().to(dtype).contiguous()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()  # leaves out batch norm's count of batches
    }
    text = json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False)
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata={METADATA_KEY: text})
        return
    path.mkdir()
    save_file(tensors, path / WEIGHTS_FILE)
    (path / SPEC_FILE).write_text(text + "\n", encoding="utf-8")


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise OutputError(f"{target} exists; choose another path, or allow overwriting it")
    folder_is_model = target.is_dir() and {p.name for p in target.iterdir()} <= {
        SPEC_FILE,
        WEIGHTS_FILE,
    }
    if not folder_is_model and not (target.is_file() and target.suffix == ".safetensors"):
        raise OutputError(f"{target} exists and is not a model: it isn't overwritten")


def _find(source: str | Path) -> Path:
    bundled = bundled_models()
    if str(source) in bundled:
        return bundled[str(source)]
    path = Path(source)
    if not path.exists():
        known = ", ".join(bundled) or "none"
        raise ModelError(f"no model {source}: neither a path nor a bundled model ({known})")
    return path


def _parse_spec(text: str, where: str) -> ModelSpec:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or "format_version" not in content:
        raise ModelError(f"{where} is not a model spec: it has no format_version")
    try:
        return ModelSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # Without the name of the family, which pydantic puts after the field that has several.
        place = [str(part) for part in first["loc"]]
        field = ".".join(
            part for i, part in enumerate(place) if place[i - 1 : i] != ["architecture"]
        )
        problem = first["msg"].removeprefix("Value error, ")
        raise ModelError(f"{where}: {field + ': ' if field else ''}{problem}") from error


def _check_weights(path: Path, spec: ModelSpec) -> str:
    """Check all weights, one at a time, and return their hash."""
    digest = _Digest(spec)
    for name, entry, tensor, content in _stream_weights(path, spec):
        digest.add(name, entry, content)
        _check_finite(path, name, tensor)
    return digest.value


def _read_weights(path: Path, spec: ModelSpec) -> tuple[dict[str, Tensor], str]:
    """Return the weights in float32, and their hash."""
    import torch

    digest, weights = _Digest(spec), {}
    for name, entry, tensor, content in _stream_weights(path, spec):
        digest.add(name, entry, content)
        weights[name] = tensor.to(torch.float32)
    return weights, digest.value


def _stream_weights(
    path: Path, spec: ModelSpec
) -> Iterator[tuple[str, TensorEntry, Tensor, bytearray]]:
    """Yield each weight with its bytes, by name; no more than one is held here."""
    import torch

    file = _weights_file(path)
    header = read_header(file)
    _check_names(file, header, spec)
    for name, entry in sorted(header.tensors.items()):
        content = read_tensor(file, entry)
        dtype = getattr(torch, TORCH_NAMES[entry.dtype])
        yield name, entry, torch.frombuffer(content, dtype=dtype).reshape(entry.shape), content


def _check_finite(file: Path, name: str, tensor: Tensor) -> None:
    # One pass without a mask as large as the tensor: NaN and ±inf both show in the sum of 0·x.
    if not bool((tensor.reshape(-1) * 0).sum().isfinite()):
        raise ModelError(f"{file}: {name} holds NaN or infinite numbers; train or save again")


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    file = path / WEIGHTS_FILE
    if not file.exists():
        others = sorted(p.name for p in path.iterdir() if p.name != SPEC_FILE)
        found = f"found {', '.join(others[:5])}; " if others else ""
        raise ModelError(f"{path} has no {WEIGHTS_FILE} ({found}only safetensors are loaded)")
    return file


def _check_names(file: Path, header: Header, spec: ModelSpec) -> None:
    import torch

    with torch.device("meta"):
        expected = _build_empty(spec).state_dict()
    shapes = {n: tuple(t.shape) for n, t in expected.items() if t.is_floating_point()}
    for problem, names in (
        ("lacks", shapes.keys() - header.tensors.keys()),
        ("has, beyond what its spec describes,", header.tensors.keys() - shapes.keys()),
    ):
        if names:
            first = sorted(names)
            more = f" and {len(first) - 1} more" if len(first) > 1 else ""
            raise ModelError(
                f"{file} {problem} the weights {first[0]}{more}; "
                "weights and spec must belong together"
            )
    for name, entry in header.tensors.items():
        if entry.shape != shapes[name]:
            raise ModelError(
                f"{file}: {name} has the shape {list(entry.shape)}, its spec asks for "
                f"{list(shapes[name])}; weights and spec must belong together"
            )


def _build_empty(spec: ModelSpec) -> nn.Module:
    return spec.architecture.build()


def _build(spec: ModelSpec, weights: dict[str, Tensor]) -> nn.Module:
    import torch

    with torch.device("meta"):
        network = _build_empty(spec)
    counters = {
        name: torch.zeros((), dtype=tensor.dtype)
        for name, tensor in network.state_dict().items()
        if not tensor.is_floating_point()  # batch norm's count of batches
    }
    network.load_state_dict(weights | counters, strict=True, assign=True)
    return network.eval()


class _Digest:
    """The hash of a model: its weights and what else decides the labels."""

    def __init__(self, spec: ModelSpec) -> None:
        self._digest = hashlib.sha256()
        self._add(spec.pixel_fields())

    def _add(self, part: Any) -> None:
        self._digest.update(json.dumps(part, sort_keys=True).encode() + b"\n")

    def add(self, name: str, entry: TensorEntry, content: bytearray) -> None:
        """Add a weight; they come in the order of their names."""
        self._add([name, entry.dtype, list(entry.shape)])
        self._digest.update(content)

    @property
    def value(self) -> str:
        """The sha256 of what was added."""
        return self._digest.hexdigest()

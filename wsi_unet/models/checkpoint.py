"""Models on disk: safetensors weights and a JSON spec, in a folder or in a single file.

    nuclei-he/model.json            the spec (wsi_unet.models.spec)
    nuclei-he/weights.safetensors   the weights

or one `.safetensors` file that carries the spec as text in its header, under the key `wsi_unet`;
or, for a network that is a program, its file in place of the weights (`PROGRAM_FILES`). Nothing
that can run code is loaded unless the caller trusts it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from weakref import WeakValueDictionary

from pydantic import ValidationError

from wsi_unet.errors import ModelError
from wsi_unet.models.destination import check_replaceable, writing
from wsi_unet.models.program_file import PROGRAM_FILES, ProgramFile
from wsi_unet.models.spec import ModelSpec
from wsi_unet.models.stored_network import (
    METADATA_KEY,
    SPEC_FILE,
    WEIGHTS_FILE,
    StoredNetwork,
    locate_network,
)
from wsi_unet.models.validation_errors import first_problem
from wsi_unet.models.weights_file import read_header

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_SPEC = 2**20

WeightType = Literal["float32", "float16", "bfloat16"]


# Tasks name models by path; as long as somebody holds the model, its path leads to it.
_IN_PROCESS: WeakValueDictionary[str, Model] = WeakValueDictionary()


@dataclass(frozen=True)
class Model:
    """A checked model on disk. Small and picklable: the weights stay in their file.

    Attributes:
        spec: what the model is.
        path: its folder or file.
        sha256: of the weights and of what else decides the labels (see `ModelSpec.pixel_fields`);
            the same for the folder and the single-file form, whatever the names and colours.
        stored: how its network is stored.
    """

    spec: ModelSpec = field(hash=False)  # its metrics are a dictionary
    path: Path
    sha256: str
    stored: StoredNetwork = field(repr=False, compare=False)

    def build(self) -> nn.Module:
        """Return the network with its weights: float32, evaluation mode, on the CPU.

        Raises:
            ModelError: if the files have changed since the model was loaded, or aren't sound.
        """
        return self.stored.build(self.sha256)

    @property
    def in_process(self) -> bool:
        """Whether it is a module of this process, which other processes can't load."""
        return str(self.path) in _IN_PROCESS

    @property
    def trusted(self) -> bool:
        """Whether it was loaded as something that may run code."""
        return self.stored.trust

    def __dask_tokenize__(self) -> tuple[str, str]:
        """Tell models apart for Dask by their hash."""
        return "wsi_unet.Model", self.sha256


def keep_in_process(model: Model) -> Model:
    """Let `load_model` find a model that is a module of this process by its path.

    Returns:
        The model that was kept under this path before, if somebody still holds it; else `model`.
    """
    return _IN_PROCESS.setdefault(str(model.path), model)


def load_model(source: str | Path, *, trust: bool = False) -> Model:
    """Find a model and check all of it: spec, names, shapes and values of the weights.

    Args:
        source: name of a bundled model, or the path of a model's folder or .safetensors file.
        trust: take a program that can run any code (TorchScript, torch.export); it does so when
            the network is built.

    Raises:
        ModelError: if there is no such model or something in it is wrong.
    """
    kept = _IN_PROCESS.get(str(source))
    if kept is not None:
        return kept
    path = _find(source)
    spec = read_spec(path)
    stored = locate_network(path, spec, trust=trust)
    return Model(spec, path, stored.check(), stored)


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
                "make a model of it with wsi-unet model import"
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
        network: the trained network; its state must be that of `build_network(spec.architecture)`.
        spec: what to say about it.
        path: where to.
        weights: number type in the file; 16 bits halve its size.
        overwrite: whether an existing model there may be replaced.

    Raises:
        OutputError: if something is there already (and isn't a model, or `overwrite` is off), or
            it can't be written.
        ModelError: if the weights don't fit the spec or aren't finite in that number type.
    """
    return _save(path, lambda new: _write(network, spec, new, weights), overwrite=overwrite)


def put_model(network: nn.Module, spec: ModelSpec, folder: Path, scratch: Path) -> Model:
    """Put a model's files into a folder that holds other things, too, such as its training.

    Each file is replaced at one blow, the weights first: whoever reads meanwhile finds a whole
    model, at worst with the last one's card, as long as the architecture and classes stay.

    Args:
        network: the trained network; its state must be that of `build_network(spec.architecture)`.
        spec: what to say about it.
        folder: the model's folder; made if it isn't there.
        scratch: a folder on the same file system, for what isn't finished.

    Raises:
        OutputError: if it can't be written.
        ModelError: if the weights don't fit the spec or aren't finite.
    """
    with (
        writing(folder / SPEC_FILE),
        tempfile.TemporaryDirectory(prefix=".", suffix=".partial", dir=scratch) as temporary,
    ):
        new = Path(temporary) / folder.name
        _write(network, spec, new, "float32")
        checked = load_model(new.absolute())
        for name in (WEIGHTS_FILE, SPEC_FILE):
            (new / name).replace(folder / name)
    place = folder.absolute()
    return Model(spec, place, checked.sha256, locate_network(place, spec, trust=False))


def write_card(folder: Path, spec: ModelSpec) -> None:
    """Replace the spec of a model in a folder, at one blow; what decides labels must stay the same.

    Raises:
        OutputError: if it can't be written.
    """
    new = folder / f".{SPEC_FILE}.partial"
    with writing(folder / SPEC_FILE):
        new.write_text(spec_text(spec) + "\n", encoding="utf-8")
        new.replace(folder / SPEC_FILE)


def save_program(
    file: ProgramFile,
    spec: ModelSpec,
    path: str | Path,
    *,
    trust: bool = False,
    overwrite: bool = False,
) -> Model:
    """Write a model that is a program: a folder with a copy of its file.

    Args:
        file: the program.
        spec: what was measured of it, and the rest.
        path: where to.
        trust: whether the file may be one that can run code.
        overwrite: whether an existing model there may be replaced.

    Raises:
        OutputError: if something is there already (and isn't a model, or `overwrite` is off), or
            it can't be written.
        ModelError: if the program can't be read, or needs trust.
    """
    content = file.read(trust=trust)

    def write(new: Path) -> None:
        new.mkdir()
        (new / PROGRAM_FILES[file.kind]).write_bytes(content)
        (new / SPEC_FILE).write_text(spec_text(spec) + "\n", encoding="utf-8")

    return _save(path, write, overwrite=overwrite, trust=trust)


def _save(
    path: str | Path,
    write: Callable[[Path], None],
    *,
    overwrite: bool,
    trust: bool = False,
) -> Model:
    target = Path(path)
    check_replaceable(target, overwrite=overwrite)
    with (
        writing(target),
        tempfile.TemporaryDirectory(prefix=".", suffix=".partial", dir=target.parent) as folder,
    ):
        new = Path(folder) / target.name
        write(new)
        checked = load_model(new.absolute(), trust=trust)
        _replace(target, new, Path(folder) / "replaced")
    place = target.absolute()
    return Model(
        checked.spec, place, checked.sha256, locate_network(place, checked.spec, trust=trust)
    )


def _replace(target: Path, new: Path, old: Path) -> None:
    """Put `new` in the place of `target`, which `old` holds meanwhile if it is a folder."""
    if not target.is_dir():
        new.replace(target)
        return
    target.rename(old)
    try:
        new.replace(target)
    except OSError:
        old.rename(target)
        raise


def _write(network: nn.Module, spec: ModelSpec, path: Path, weights: WeightType) -> None:
    import torch

    dtype = getattr(torch, weights)
    tensors = {
        name: tensor.detach().cpu().to(dtype).contiguous()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()  # leaves out batch norm's count of batches
    }
    text = spec_text(spec)
    if path.suffix == ".safetensors":
        _write_tensors(tensors, path, {METADATA_KEY: text})
        return
    path.mkdir()
    _write_tensors(tensors, path / WEIGHTS_FILE)
    (path / SPEC_FILE).write_text(text + "\n", encoding="utf-8")


def _write_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(str(error)) from error


def spec_text(spec: ModelSpec) -> str:
    """Return a spec as the text of a model's card, JSON."""
    return json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False)


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
        raise ModelError(f"{where}: {first_problem(error)}") from error

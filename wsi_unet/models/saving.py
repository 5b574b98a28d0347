"""Writing models atomically, as a folder or a single file, and checking what was written.

`model` describes the files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_unet.models.destination import check_replaceable, writing
from wsi_unet.models.model import Model, load_model
from wsi_unet.models.paths import AnyPath, parse_path
from wsi_unet.models.program_file import PROGRAM_FILES, ProgramFile
from wsi_unet.models.stored_network import METADATA_KEY, SPEC_FILE, WEIGHTS_FILE, locate_network

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsi_unet.models.number_types import Precision
    from wsi_unet.models.spec import ModelSpec


def save_model(
    network: nn.Module,
    spec: ModelSpec,
    path: AnyPath,
    *,
    weights: Precision = "float32",
    overwrite: bool = False,
) -> Model:
    """Save a network as a model: a folder, or a single file where `path` ends in .safetensors.

    The model is written atomically, and is read back and checked before this returns.

    >>> import tempfile
    >>> from wsi_unet.models import ModelClass, ModelSpec, Normalisation, UNetConfig, build_network
    >>> spec = ModelSpec(
    ...     name="small",
    ...     architecture=UNetConfig(depth=2, base_width=4),
    ...     classes=(
    ...         ModelClass(name="tissue", color="#ffffff"),
    ...         ModelClass(name="gland", color="#aa3377"),
    ...     ),
    ...     background="tissue",
    ...     mpp=0.5,
    ...     normalisation=Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3),
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = save_model(build_network(spec.architecture), spec, f"{folder}/small")

    Args:
        network: the trained network; its state must be that of `build_network(spec.architecture)`.
        spec: the model's description.
        path: the folder or file to write.
        weights: number type of the weights in the file; 16 bits halve its size.
        overwrite: whether an existing model there may be replaced.

    Raises:
        OutputError: something is there already (and isn't a model, or `overwrite` is off), or
            it can't be written.
        ModelError: the weights don't fit the spec or aren't finite in that number type.
    """
    return _save(path, lambda new: _write(network, spec, new, weights), overwrite=overwrite)


def put_model(network: nn.Module, spec: ModelSpec, folder: Path, scratch: Path) -> Model:
    """Put a model's files into a folder that holds other things too, such as its training.

    Each file is replaced atomically, the weights first: a reader always finds a whole
    model, at worst with the previous spec, as long as architecture and classes stay.

    Args:
        network: the trained network; its state must be that of `build_network(spec.architecture)`.
        spec: the model's description.
        folder: the model's folder; made if it isn't there.
        scratch: a folder on the same file system, for unfinished files.

    Raises:
        OutputError: it can't be written.
        ModelError: the weights don't fit the spec or aren't finite.
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
    path = folder.absolute()
    return Model(spec, path, checked.sha256, locate_network(path, spec, trust=False))


def write_spec(folder: Path, spec: ModelSpec) -> None:
    """Replace the spec of a model in a folder atomically; what decides labels must stay the same.

    Raises:
        OutputError: it can't be written.
    """
    new = folder / f".{SPEC_FILE}.partial"
    with writing(folder / SPEC_FILE):
        new.write_text(spec.to_text() + "\n", encoding="utf-8")
        new.replace(folder / SPEC_FILE)


def save_program(
    file: ProgramFile,
    spec: ModelSpec,
    path: AnyPath,
    *,
    trust: bool = False,
    overwrite: bool = False,
) -> Model:
    """Save a program as a model: a folder with a copy of its file.

    Args:
        file: the program.
        spec: the model's description, with what was measured of the program.
        path: the folder to write.
        trust: whether the file may be one that can run code.
        overwrite: whether an existing model there may be replaced.

    Raises:
        OutputError: something is there already (and isn't a model, or `overwrite` is off), or
            it can't be written.
        ModelError: the program can't be read, or needs trust.
    """
    content = file.read(trust=trust)

    def write(new: Path) -> None:
        new.mkdir()
        (new / PROGRAM_FILES[file.kind]).write_bytes(content)
        (new / SPEC_FILE).write_text(spec.to_text() + "\n", encoding="utf-8")

    return _save(path, write, overwrite=overwrite, trust=trust)


def _save(
    path: AnyPath, write: Callable[[Path], None], *, overwrite: bool, trust: bool = False
) -> Model:
    destination = parse_path(path)
    check_replaceable(destination, overwrite=overwrite)
    with (
        writing(destination),
        tempfile.TemporaryDirectory(
            prefix=".", suffix=".partial", dir=destination.parent
        ) as folder,
    ):
        new = Path(folder) / destination.name
        write(new)
        checked = load_model(new, trust=trust)
        _replace(destination, new, Path(folder) / "replaced")
    stored = locate_network(destination, checked.spec, trust=trust)
    return Model(checked.spec, destination, checked.sha256, stored)


def _replace(destination: Path, new: Path, old: Path) -> None:
    """Move `new` to `destination`; what was there, if a folder, is moved to `old` meanwhile."""
    if not destination.is_dir():
        new.replace(destination)
        return
    destination.rename(old)
    try:
        new.replace(destination)
    except OSError:
        old.rename(destination)
        raise


def _write(network: nn.Module, spec: ModelSpec, path: Path, weights: Precision) -> None:
    import torch

    dtype = getattr(torch, weights)
    tensors = {
        name: tensor.detach().cpu().to(dtype).contiguous()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()  # leaves out batch norm's count of batches
    }
    text = spec.to_text()
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

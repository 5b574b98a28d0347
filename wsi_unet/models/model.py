"""Models on disk, checked when they are loaded: safetensors weights, or a program, and a spec.

    nuclei-he/model.json            the spec (wsi_unet.models.spec)
    nuclei-he/weights.safetensors   the weights

or one `.safetensors` file that carries the spec as text in its header, under the key `wsi_unet`.
A network that is a program has the program's file in place of the weights (`PROGRAM_FILES`).
Nothing that can run code is loaded unless the caller trusts it. `saving` writes models.
"""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from pydantic import ValidationError

from wsi_unet.errors import ModelError
from wsi_unet.models.paths import AnyPath, parse_path
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
from wsi_unet.regular_files import read_regular

if TYPE_CHECKING:
    from torch import nn

LARGEST_SPEC = 2**20
"""Bytes of the largest spec that is read; real ones are some kB."""

# Tasks name models by path; the path is valid as long as somebody holds the model.
_IN_PROCESS: WeakValueDictionary[str, Model] = WeakValueDictionary()


@dataclass(frozen=True)
class Model:
    """A checked model. Small and picklable: the weights stay in their file.

    Attributes:
        spec: what the model is.
        path: its folder or file, absolute.
        sha256: hash of the weights and of what else decides the labels
            (`ModelSpec.pixel_fields`); the same for the folder and the single-file form, whatever
            the names and colours.
        stored: how its network is stored.
    """

    spec: ModelSpec = field(hash=False)  # its metrics are a dictionary
    path: Path
    sha256: str
    stored: StoredNetwork = field(repr=False, compare=False)

    def build(self) -> nn.Module:
        """Return the network with its weights: float32, evaluation mode, on the CPU.

        It takes images (n, `spec.in_channels`, rows, columns), normalised as the spec says, and
        returns logits (or probabilities, where `spec.activated`) (n, classes, rows − 2s,
        columns − 2s), where s is `spec.border().shrink`.

        Raises:
            ModelError: the files have changed since the model was loaded, or are damaged.
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
        """Return what identifies the model for Dask: its hash."""
        return "wsi_unet.Model", self.sha256


def keep_in_process(model: Model) -> Model:
    """Register a model that is a module of this process, so that `load_model` finds its path.

    Returns:
        The model that was kept under this path before, if somebody still holds it; else `model`.
    """
    return _IN_PROCESS.setdefault(str(model.path), model)


def load_model(name_or_path: AnyPath, *, trust: bool = False) -> Model:
    """Load a model and check all of it: spec, and names, shapes and values of the weights.

    >>> load_model("nuclei-he").spec.mpp
    0.5

    Args:
        name_or_path: name of a bundled model, or the path of a model's folder or .safetensors file.
        trust: whether a program that can run any code (TorchScript, torch.export) may be loaded;
            its code runs when the network is built.

    Raises:
        ModelError: there is no such model or something in it is wrong.
    """
    kept = _IN_PROCESS.get(str(name_or_path))
    if kept is not None:
        return kept
    path = _find_model(name_or_path)
    spec = read_spec(path)
    stored = locate_network(path, spec, trust=trust)
    return Model(spec, path, stored.check(), stored)


def bundled_models() -> dict[str, Path]:
    """Return the folders of the models that come with the package, by name."""
    folder = Path(__file__).parent / "bundled"
    return {file.parent.name: file.parent for file in sorted(folder.glob(f"*/{SPEC_FILE}"))}


def read_spec(name_or_path: AnyPath) -> ModelSpec:
    """Read a model's spec alone, without its weights (and without torch).

    Args:
        name_or_path: name of a bundled model, or the path of a model's folder or .safetensors file.

    Raises:
        ModelError: it isn't there or isn't valid.
    """
    path = _find_model(name_or_path)
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
        return _parse_spec(read_regular(file, LARGEST_SPEC).decode(), str(file))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} isn't a model: it has no {SPEC_FILE} (a model is a folder with {SPEC_FILE} "
            f"and {WEIGHTS_FILE}, or one .safetensors file)"
        ) from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ModelError(
                f"{file} is larger than {LARGEST_SPEC} bytes: it is not a model spec"
            ) from error
        raise ModelError(f"can't read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"can't read {file}: {error}") from error


def _find_model(name_or_path: AnyPath) -> Path:
    bundled = bundled_models()
    if str(name_or_path) in bundled:
        return bundled[str(name_or_path)]
    path = parse_path(name_or_path)
    if not path.exists():
        names = ", ".join(bundled) or "none"
        raise ModelError(
            f"model {str(name_or_path)!r} is neither a path nor a bundled model ({names})"
        )
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

"""Make models of checkpoints from elsewhere."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_unet._version import __version__
from wsi_unet.errors import ModelError, OptionError, OutputError
from wsi_unet.models.importing.checkpoint_file import is_checkpoint, open_checkpoint
from wsi_unet.models.importing.families import FAMILIES, Recognised, recognise
from wsi_unet.models.importing.hints import FileFacts, ImportHints, make_spec, model_name
from wsi_unet.models.program_file import open_program

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsi_unet.models.model import Model
    from wsi_unet.models.spec import Architecture, ModelSpec


def recognise_checkpoint(path: str | Path, family: str = "auto") -> Recognised:
    """Find out what a checkpoint is, without loading it.

    Args:
        path: the checkpoint.
        family: a family's name, or "auto" for all of them.

    Raises:
        ModelError: if it is no checkpoint, isn't safe, or is of no known family.
        OptionError: if there is no such family.
    """
    chosen = [one for one in FAMILIES if family in {"auto", one.name}]
    if not chosen:
        known = ", ".join(one.name for one in FAMILIES)
        raise OptionError(f"--family: {family!r} is none of auto, {known}")
    return recognise(open_checkpoint(path), chosen)


def infer_spec(found: Recognised, told: ImportHints) -> ModelSpec:
    """Return the spec of a checkpoint's network.

    Raises:
        ModelError: if its tensors' shapes contradict each other.
        OptionError: if something must be told and wasn't, or was told wrong or needlessly.
    """
    answers = told.answers
    found.check_given(answers)
    asked = [question for question in found.questions if question.option not in answers.given]
    if asked:
        options = ", ".join(f"{one.option} {'|'.join(one.choices)}" for one in asked)
        raise OptionError(
            f"{found.file.path} is a checkpoint of {found.family.title}, whose keys don't tell "
            f"everything: give {options} to wsi-unet model import"
        )
    config = found.config(answers)
    family = found.family
    origin = FileFacts(family.title, family.head, assumed=found.assumed(config, answers))
    return make_spec(found.file.path, origin, config, told)


def import_checkpoint(
    path: str | Path, told: ImportHints | None = None
) -> tuple[nn.Module, ModelSpec]:
    """Build our network of a checkpoint's family and give it the checkpoint's weights.

    Returns:
        The network, in float32 and evaluation mode on the CPU, and its spec.

    Raises:
        ModelError: if the checkpoint is unsafe, damaged, of no known family, or holds numbers
            that aren't finite.
        OptionError: if something must be told and wasn't, or was told wrong.
    """
    told = told or ImportHints()
    found = recognise_checkpoint(path, told.family)
    spec = infer_spec(found, told)
    return _network(found, spec.architecture), spec


def import_model(
    path: str | Path,
    output: str | Path | None = None,
    told: ImportHints | None = None,
    *,
    trust: bool = False,
    overwrite: bool = False,
) -> Model:
    """Import a checkpoint or a program and save it as a model (see `save_model`).

    Args:
        path: the file.
        output: where to; None is the model's name, right here.
        told: what the file can't tell.
        trust: whether it may be a program that can run code.
        overwrite: whether an existing model there may be replaced.

    Raises:
        ModelError, OptionError: as `import_checkpoint` and `import_program`.
        OutputError: if something is at `output` already, or it can't be written.
    """
    from wsi_unet.models.destination import check_replaceable
    from wsi_unet.models.saving import save_model, save_program

    told = told or ImportHints()
    target = Path(output or told.name or model_name(Path(path)))
    check_replaceable(target, overwrite=overwrite, source=Path(path))
    if open_program(path) is not None:
        from wsi_unet.models.importing.programs import import_program

        _check_told_of_program(path, told)
        program, spec = import_program(path, told, trust=trust)
        return save_program(program, spec, target, trust=trust, overwrite=overwrite)
    network, spec = import_checkpoint(path, told)
    return save_model(network, spec, target, overwrite=overwrite)


def _check_told_of_program(path: str | Path, told: ImportHints) -> None:
    """Refuse to be told of a program what only decides how weights become a network.

    Raises:
        OptionError: if it was told.
    """
    given = set(told.answers.given)
    if told.family != "auto":
        given.add("--family")
    if told.interpolation is not None:
        given.add("--interpolation")
    if given:
        raise OptionError(
            f"{', '.join(sorted(given))}: {path} is a program, which is run as it is; leave it out"
        )


def load_or_import_model(source: str | Path, *, trust: bool = False) -> Model:
    """Load a model, or a checkpoint or program of which nothing must be told.

    A checkpoint's model is kept in the user's cache (`cache_folder`), under the checkpoint's
    SHA-256, so that it is made once and workers find it.

    Args:
        source: a bundled model's name, or the path of a model, checkpoint or program.
        trust: whether it may be a program that can run code.

    Raises:
        ModelError: as `load_model`, `import_checkpoint` and `import_program`.
        OptionError: if something must be told; `wsi-unet model import` takes it.
    """
    from wsi_unet.models.model import load_model

    program = open_program(source)
    if program is not None:
        program.check_trust(trust=trust)
    elif not is_checkpoint(source):
        return load_model(source, trust=trust)
    kept = _place(Path(source))
    return _kept(kept, trust=trust) or _keep(source, kept, trust=trust)


def check_model_exists(source: str | Path) -> None:
    """Make sure that there is something for `load_or_import_model`, without loading it.

    Raises:
        ModelError: if there is neither a model with a sound spec, nor a checkpoint or program.
    """
    from wsi_unet.models.model import read_spec

    if open_program(source) is None and not is_checkpoint(source):
        read_spec(source)


def _place(source: Path) -> Path:
    """Return where the model made of a file is kept.

    Raises:
        ModelError: if the file can't be read.
    """
    try:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"can't read {source}: {error.strerror}") from error
    return cache_folder() / digest / model_name(source)


def cache_folder() -> Path:
    """Return the folder of the models that were made of checkpoints by this version.

    It is in `$WSI_UNET_CACHE`, else `$XDG_CACHE_HOME`, else `~/.cache`.
    """
    given = os.environ.get("WSI_UNET_CACHE")
    if given:
        return Path(given) / "models" / __version__
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "wsi-unet" / "models" / __version__


def _kept(path: Path, *, trust: bool) -> Model | None:
    """Return the model that is kept there; None if there is none, or a damaged one."""
    from wsi_unet.models.model import load_model

    try:
        return load_model(path, trust=trust)
    except ModelError:
        return None


def _keep(source: str | Path, place: Path, *, trust: bool) -> Model:
    try:
        return import_model(source, place, trust=trust, overwrite=True)
    except OutputError as error:
        made_meanwhile = _kept(place, trust=trust)
        if made_meanwhile is None:
            raise OutputError(
                f"can't keep the imported model in the cache ({error}); "
                "set WSI_UNET_CACHE, or use wsi-unet model import"
            ) from error
        return made_meanwhile


def _network(found: Recognised, architecture: Architecture) -> nn.Module:
    import torch

    from wsi_unet.models.networks.build import build_network

    with torch.device("meta"):
        network = build_network(architecture)
    expected = network.state_dict()
    state = found.state(architecture)
    for name, tensor in expected.items():
        if name not in state and (name.endswith(".bias") or not tensor.is_floating_point()):
            # A convolution without a bias; and batch norm's count of batches.
            state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    _check_shapes(found, expected, state)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def _check_shapes(found: Recognised, expected: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Compare with what a network of the inferred shape has; names are the checkpoint's.

    Raises:
        ModelError: if something is missing, superfluous, or of another shape.
    """
    where = found.file.path
    for problem, names in (
        ("lacks", expected.keys() - state.keys()),
        ("has no use for", state.keys() - expected.keys()),
    ):
        if names:
            raise ModelError(
                f"{where} isn't quite a checkpoint of {found.family.title}: the network {problem} "
                f"{found.theirs(min(names))}"
            )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{where}: {found.theirs(name)} has the shape {list(tensor.shape)} where "
                f"{found.family.title} of these widths has {list(expected[name].shape)}"
            )

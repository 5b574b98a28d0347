"""Importing checkpoints and programs as models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wsi_unet.errors import ModelError, OptionError
from wsi_unet.models.importing.checkpoint_file import open_checkpoint
from wsi_unet.models.importing.families import FAMILIES, RecognisedCheckpoint, recognise_family
from wsi_unet.models.importing.hints import ImportHints
from wsi_unet.models.importing.imported_spec import FileFacts, make_spec, model_name
from wsi_unet.models.paths import AnyPath, parse_path
from wsi_unet.models.program_file import open_program

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsi_unet.models.model import Model
    from wsi_unet.models.spec import Architecture, ModelSpec


def recognise_checkpoint(
    path: AnyPath, family: str = "auto", entry: str | None = None
) -> RecognisedCheckpoint:
    """Find out what a checkpoint is, without loading its weights.

    Args:
        path: the checkpoint.
        family: a family's name, or "auto" for all of them.
        entry: where the network lies, if there are several; see `ImportHints`.

    Raises:
        ModelError: it isn't a checkpoint, isn't safe, or is of no known family.
        OptionError: there is no such family or entry, or there are several networks.
    """
    candidates = [known for known in FAMILIES if family in {"auto", known.name}]
    if not candidates:
        names = ", ".join(known.name for known in FAMILIES)
        raise OptionError(f"`family`: {family!r} is none of auto, {names}", option="family")
    return recognise_family(open_checkpoint(path), candidates, entry)


def infer_spec(checkpoint: RecognisedCheckpoint, hints: ImportHints) -> ModelSpec:
    """Return the spec of a checkpoint's network.

    Raises:
        ModelError: the shapes of its tensors contradict each other.
        OptionError: a hint is missing, wrong or needless.
    """
    shape_hints = hints.shape_hints
    checkpoint.check_hints(shape_hints)
    missing = [hint for hint in checkpoint.needed_hints if hint.option not in shape_hints.given]
    family = checkpoint.family
    if missing:
        options = " and ".join(f"`{hint.option}` ({' or '.join(hint.choices)})" for hint in missing)
        raise OptionError(
            f"{checkpoint.file.path} is a checkpoint of {family.title}, whose keys don't say "
            f"everything: give {options} to wsi-unet model import",
            option=missing[0].option if len(missing) == 1 else None,
        )
    config = checkpoint.infer_config(shape_hints)
    assumed = checkpoint.assumptions(config, shape_hints)
    facts = FileFacts(family.title, family.head, assumed=assumed)
    return make_spec(checkpoint.file.path, facts, config, hints)


def import_checkpoint(
    path: AnyPath, hints: ImportHints | None = None
) -> tuple[nn.Module, ModelSpec]:
    """Build the network of a checkpoint's family and load the checkpoint's weights into it.

    Args:
        path: a file that `torch.save` or safetensors wrote.
        hints: what the file doesn't say.

    Returns:
        The network, in float32 and evaluation mode on the CPU, and its spec.

    Raises:
        ModelError: the checkpoint is unsafe, damaged, of no known family, or holds numbers
            that aren't finite.
        OptionError: a hint is missing, wrong or needless.
    """
    hints = hints or ImportHints()
    checkpoint = recognise_checkpoint(path, hints.family, hints.entry)
    spec = infer_spec(checkpoint, hints)
    return _build_network(checkpoint, spec.architecture), spec


def import_model(
    path: AnyPath,
    output: AnyPath | None = None,
    hints: ImportHints | None = None,
    *,
    trust: bool = False,
    overwrite: bool = False,
) -> Model:
    """Import a checkpoint or a program and save it as a model (see `save_model`).

    Args:
        path: the checkpoint or program.
        output: the folder or .safetensors file to write; None: a folder of the model's name in
            the current folder.
        hints: what the file doesn't say.
        trust: whether it may be a program that can run code.
        overwrite: whether an existing model at `output` may be replaced.

    Raises:
        ModelError, OptionError: as `import_checkpoint` and `import_program`.
        OutputError: something is at `output` already, or it can't be written.
    """
    from wsi_unet.models.destination import check_replaceable
    from wsi_unet.models.saving import save_model, save_program

    hints = hints or ImportHints()
    source = parse_path(path)
    destination = parse_path(output or hints.name or model_name(source))
    check_replaceable(destination, overwrite=overwrite, imported=source)
    if open_program(source) is not None:
        from wsi_unet.models.importing.programs import import_program

        _check_program_hints(source, hints)
        program, spec = import_program(source, hints, trust=trust)
        return save_program(program, spec, destination, trust=trust, overwrite=overwrite)
    network, spec = import_checkpoint(source, hints)
    return save_model(network, spec, destination, overwrite=overwrite)


def _check_program_hints(path: Path, hints: ImportHints) -> None:
    """Refuse hints for a program that only decide how weights become a network.

    Raises:
        OptionError: there is such a hint.
    """
    needless = set(hints.shape_hints.given)
    if hints.family != "auto":
        needless.add("family")
    if hints.entry is not None:
        needless.add("entry")
    if hints.interpolation is not None:
        needless.add("interpolation")
    if needless:
        listed = ", ".join(f"`{option}`" for option in sorted(needless))
        raise OptionError(
            f"{listed}: {path} is a program, which is run as it is; leave it out",
            option=next(iter(needless)) if len(needless) == 1 else None,
        )


def _build_network(checkpoint: RecognisedCheckpoint, architecture: Architecture) -> nn.Module:
    import torch

    from wsi_unet.models.networks.build import build_network

    with torch.device("meta"):
        network = build_network(architecture)
    expected = network.state_dict()
    state = checkpoint.load_state(architecture)
    for name, tensor in expected.items():
        if name not in state and (name.endswith(".bias") or not tensor.is_floating_point()):
            # A convolution without a bias; and batch norm's count of batches.
            state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    _check_shapes(checkpoint, expected, state)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def _check_shapes(
    checkpoint: RecognisedCheckpoint, expected: dict[str, Tensor], state: dict[str, Tensor]
) -> None:
    """Compare a state with that of the network; messages use the checkpoint's names.

    Raises:
        ModelError: a tensor is missing, unexpected, or of another shape.
    """
    path, title = checkpoint.file.path, checkpoint.family.title
    for problem, names in (
        ("lacks", expected.keys() - state.keys()),
        ("has no use for", state.keys() - expected.keys()),
    ):
        if names:
            raise ModelError(
                f"{path} isn't quite a checkpoint of {title}: the network {problem} "
                f"{checkpoint.their_name(min(names))}"
            )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{path}: {checkpoint.their_name(name)} has the shape {list(tensor.shape)} where "
                f"{title} of these widths has {list(expected[name].shape)}"
            )

"""Importing programs and modules, whose properties are measured by running them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from wsi_unet.errors import ModelError
from wsi_unet.models.architectures.program import ProgramConfig
from wsi_unet.models.exported.onnx_file import OnnxSignature, check_onnx
from wsi_unet.models.exported.vetting import vet_onnx
from wsi_unet.models.importing.hints import ImportHints
from wsi_unet.models.importing.imported_spec import FileFacts, make_spec
from wsi_unet.models.paths import AnyPath
from wsi_unet.models.program_file import TITLES, ProgramFile, open_program
from wsi_unet.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from wsi_unet.models.probing.properties import NetworkProperties

MOST_CLASSES = 255
"""Classes that fit into labels of one byte, beside 0."""

CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
"""Number of channels, by their order."""


def import_program(
    path: AnyPath, hints: ImportHints | None = None, *, trust: bool = False
) -> tuple[ProgramFile, ModelSpec]:
    """Measure a program and make its spec.

    It is run some ten times on images of a few hundred pixels.

    Args:
        path: an ONNX, TorchScript or torch.export file.
        hints: what the file doesn't say.
        trust: whether it may run code.

    Returns:
        The program's file and its spec, for `save_program`.

    Raises:
        ModelError: it isn't a program, isn't trusted, or isn't a network that labels every pixel.
        OptionError: a hint is wrong, or the library that runs the program isn't installed.
    """
    from wsi_unet.models.exported.loading import load_program
    from wsi_unet.models.probing.properties import probe_network

    file, hints = open_program(path), hints or ImportHints()
    if file is None:
        raise ModelError(f"{path} isn't an ONNX, TorchScript or torch.export program")
    content = file.read(trust=trust)
    signature = OnnxSignature(None, None)
    if file.kind == "onnx":
        signature = check_onnx(file.path, content)
        for channels in _possible_channels(signature, hints):
            vet_onnx(file.path, content, channels, signature.input_side)
    network = load_program(file.path, file.kind, content)
    try:
        channels = signature.in_channels or _find_channels(network, hints)
        measured = probe_network(network, channels, input_side=signature.input_side)
        config = _make_config(network, file.kind, channels, measured)
    except ModelError as error:
        if str(file.path) in str(error):
            raise
        raise ModelError(f"{file.path}: {error}") from error
    facts = FileFacts(TITLES[file.kind], measured.head, activated=measured.head is not None)
    hints = replace(hints, window=hints.window or config.input_side)
    return file, make_spec(file.path, facts, config, hints)


def measure_module(module: nn.Module, in_channels: int = 3) -> ProgramConfig:
    """Measure any torch module: its border, period and cost, for a spec.

    It is run some ten times on images of a few hundred pixels. `model_from_module` makes a model
    of the module and the spec.

    Args:
        module: takes (n, in_channels, rows, columns) and returns (n, classes, rows, columns), or
            the same number of rows and columns less on each side.
        in_channels: channels of its input.

    Returns:
        The architecture to put into a `ModelSpec`.

    Raises:
        ModelError: it isn't such a network.
    """
    from wsi_unet.models.importing.modules import make_private_copy
    from wsi_unet.models.probing.properties import probe_network

    own = make_private_copy(module)
    return _make_config(own, "module", in_channels, probe_network(own, in_channels))


def _possible_channels(signature: OnnxSignature, hints: ImportHints) -> tuple[int, ...]:
    if signature.in_channels is not None:
        return (signature.in_channels,)
    return (3, 1) if hints.channels is None else (CHANNELS[hints.channels],)


def _find_channels(network: nn.Module, hints: ImportHints) -> int:
    """Return how many channels a network takes: the hint, or else 3, or 1 if it refuses 3."""
    from wsi_unet.models.probing.accepted_sides import find_sides
    from wsi_unet.models.probing.probed_network import wrap_network

    if hints.channels is not None:
        return CHANNELS[hints.channels]
    try:
        find_sides(wrap_network(network, 3))
    except ModelError:
        return 1
    return 3


def _make_config(
    network: nn.Module,
    kind: Literal["onnx", "torchscript", "export", "module"],
    in_channels: int,
    measured: NetworkProperties,
) -> ProgramConfig:
    from wsi_unet.models.probing.usage import measure_usage

    if measured.classes > MOST_CLASSES:
        raise ModelError(
            f"the network has {measured.classes} outputs; networks with up to {MOST_CLASSES} "
            "are run"
        )
    usage = measure_usage(network, in_channels, measured.sides.side)
    return ProgramConfig(
        kind=kind,
        in_channels=in_channels,
        classes=measured.classes,
        period=measured.period,
        before=measured.before,
        after=measured.after,
        shrink=measured.sides.shrink,
        local=measured.local,
        depends_on_size=measured.depends_on_size,
        input_side=measured.sides.side if measured.sides.only else None,
        parameters=usage.parameters,
        flops_per_pixel=round(usage.flops),
        bytes_per_pixel=round(usage.memory),
    )

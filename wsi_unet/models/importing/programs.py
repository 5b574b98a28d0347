"""Make models of programs and modules: what the file doesn't say is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wsi_unet.errors import ModelError
from wsi_unet.models.architectures.program import ProgramConfig
from wsi_unet.models.exported.onnx_file import OnnxSignature, check_onnx
from wsi_unet.models.exported.vetting import vet_onnx
from wsi_unet.models.importing.hints import FileFacts, ImportHints, make_spec
from wsi_unet.models.program_file import TITLES, ProgramFile, open_program
from wsi_unet.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from wsi_unet.models.probing.properties import NetworkProperties

MOST_CLASSES = 255
"""Classes that labels of one byte have room for."""

CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}


def import_program(
    path: str | Path, told: ImportHints | None = None, *, trust: bool = False
) -> tuple[ProgramFile, ModelSpec]:
    """Measure a program and describe it.

    Args:
        path: an ONNX, TorchScript or torch.export file.
        told: what it can't tell.
        trust: whether it may run code.

    Returns:
        The program's file and its spec, for `save_program`.

    Raises:
        ModelError: if it is no program, isn't trusted, or is no network that labels every pixel.
        OptionError: if something was told wrong, or what runs it isn't installed.
    """
    from wsi_unet.models.exported.loading import load_program
    from wsi_unet.models.probing.properties import probe_network

    file, told = open_program(path), told or ImportHints()
    if file is None:
        raise ModelError(f"{path} is no ONNX, TorchScript or torch.export program")
    content = file.read(trust=trust)
    signature = OnnxSignature(None, None)
    if file.kind == "onnx":
        signature = check_onnx(file.path, content)
        for channels in _possible_channels(signature, told):
            vet_onnx(file.path, content, channels, signature.input_side)
    network = load_program(file.path, file.kind, content)
    try:
        channels = signature.in_channels or _channels(network, told)
        measured = probe_network(network, channels, input_side=signature.input_side)
        config = _config(network, file.kind, channels, measured)
    except ModelError as error:
        if str(file.path) in str(error):
            raise
        raise ModelError(f"{file.path}: {error}") from error
    origin = FileFacts(TITLES[file.kind], measured.head, activated=measured.head is not None)
    told = replace(told, window=told.window or config.input_side)
    return file, make_spec(file.path, origin, config, told)


def measure_module(module: nn.Module, in_channels: int = 3) -> ProgramConfig:
    """Measure any torch module, to be described by a spec (see `model_from_module`).

    It is run some ten times on images of a few hundred pixels.

    Args:
        module: takes (n, channels, h, w) and returns (n, classes, h, w), or less by a margin.
        in_channels: channels of its input.

    Raises:
        ModelError: if it isn't such a network.
    """
    from wsi_unet.models.importing.modules import private_copy
    from wsi_unet.models.probing.properties import probe_network

    own = private_copy(module)
    return _config(own, "module", in_channels, probe_network(own, in_channels))


def _possible_channels(signature: OnnxSignature, told: ImportHints) -> tuple[int, ...]:
    if signature.in_channels is not None:
        return (signature.in_channels,)
    return (3, 1) if told.channels is None else (CHANNELS[told.channels],)


def _channels(network: nn.Module, told: ImportHints) -> int:
    """Return how many channels a network takes: as told, or what it doesn't refuse."""
    from wsi_unet.models.probing.accepted_sides import find_sides
    from wsi_unet.models.probing.probed_network import wrap_network

    if told.channels is not None:
        return CHANNELS[told.channels]
    try:
        find_sides(wrap_network(network, 3))
    except ModelError:
        return 1
    return 3


def _config(
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
        depends_on_size=measured.sized,
        input_side=measured.sides.side if measured.sides.only else None,
        parameters=usage.parameters,
        flops_per_pixel=round(usage.flops),
        bytes_per_pixel=round(usage.memory),
    )

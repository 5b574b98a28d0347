"""Making a model from any torch module: a private copy, and a hash that identifies it."""

from __future__ import annotations

import copy
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from wsi_unet.errors import ModelError, first_line
from wsi_unet.geometry import round_up
from wsi_unet.models.architectures.costs import window_side
from wsi_unet.models.finite import all_finite
from wsi_unet.models.model import Model, keep_in_process
from wsi_unet.models.probing.probed_network import wrap_network
from wsi_unet.models.probing.properties import detect_head
from wsi_unet.models.probing.shifting import ROOM
from wsi_unet.models.program_file import compute_sha256
from wsi_unet.models.stored_network import ModelDigest, StoredModule

if TYPE_CHECKING:
    from wsi_unet.models.spec import ModelSpec

IN_PROCESS = "/a module of this process"
"""Folder that the paths of such models name; it doesn't exist."""


def model_from_module(module: nn.Module, spec: ModelSpec) -> Model:
    """Make a model of any torch module, to be used in this process.

    The module's present state is copied: training the module further doesn't change the model.

    Args:
        module: takes (n, channels, rows, columns), normalised as the spec says, and returns
            (n, classes, rows, columns), or the same less `spec.border().shrink` on each side.
        spec: the model's spec. Its architecture is that of one of our networks or, for any other
            module, what `measure_module` returned.

    Raises:
        ModelError: it can't be copied, its weights aren't finite, or its output isn't what
            the spec says.
    """
    own = make_private_copy(module)
    check_module(own, type(module).__name__, spec)
    sha256 = hash_module(own, spec)
    # The same weights may come with another name or other colours: each spec has its own path.
    path = f"{IN_PROCESS}/{compute_sha256((sha256 + spec.to_text()).encode())}"
    return keep_in_process(Model(spec, Path(path), sha256, StoredModule(own)))


def make_private_copy(module: nn.Module) -> nn.Module:
    """Return a copy of a module in float32 and evaluation mode on the CPU.

    Raises:
        ModelError: it isn't a module or can't be copied, or it has weights that aren't
            initialised yet or aren't finite.
    """
    name = type(module).__name__
    if not isinstance(module, nn.Module):
        raise ModelError(f"a {name} isn't a torch module; wrap it in one")
    if any(map(is_lazy, (*module.parameters(), *module.buffers()))):
        raise ModelError(f"{name} has layers without weights yet; run it once on an image")
    try:
        own = copy.deepcopy(module)
    except Exception as error:  # of any type: other people's classes
        raise ModelError(f"{name} can't be copied: {first_line(error)}") from error
    own = own.to(device="cpu", dtype=torch.float32).eval()
    for key, tensor in own.state_dict().items():
        if tensor.is_floating_point() and not all_finite(tensor):
            raise ModelError(f"{name}: {key} holds NaN or infinite numbers")
    for parameter in own.parameters():
        parameter.requires_grad_(False)
    return own


def check_module(own: nn.Module, name: str, spec: ModelSpec) -> None:
    """Run a module once and compare its output with what its spec says.

    Args:
        own: a private copy of the module.
        name: the module's class, for messages.
        spec: the spec that it must fit.

    Raises:
        ModelError: it fails on a window, its output has another shape than the spec's, or it
            ends in a head where the spec says that it doesn't, or the reverse.
    """
    side = window_side(spec, spec.tile or round_up(ROOM, spec.border().period))
    probed = wrap_network(own, spec.in_channels)
    try:
        shape = tuple(probed.run(probed.image(side)).shape)
    except Exception as error:  # of any type: other people's networks
        reason = first_line(error)
        raise ModelError(f"{name} fails on {side}×{side} px: {reason}") from error
    left = side - 2 * spec.border().shrink
    if shape != (spec.classes_out, left, left):
        raise ModelError(
            f"{name} returns {'×'.join(map(str, shape))} for {side}×{side} px; its spec asks for "
            f"{spec.classes_out}×{left}×{left}"
        )
    head = detect_head(probed, side)
    if head is not None and not spec.activated:
        raise ModelError(
            f"{name} ends in a {head} already: give its spec head={head!r} and activated=True"
        )
    if head is None and spec.activated:
        raise ModelError(
            f"{name} returns no probabilities (not all are in 0…1): give its spec activated=False"
        )


def hash_module(module: nn.Module, spec: ModelSpec) -> str:
    """Return the SHA-256 of a module's spec, state, classes and their bytecode.

    Bytecode differs between versions of Python, so the hash does too.
    """
    digest = ModelDigest(spec)
    digest.add_content("structure", repr(module).encode())
    for name, below in module.named_modules():
        digest.add_content(name, _encode_settings(below))
    for kind in sorted({type(below) for below in module.modules()}, key=_qualified_name):
        digest.add_content(_qualified_name(kind), _encode_methods(kind))
    for name, tensor in sorted(module.state_dict().items()):
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        digest.add_content(f"{name} {tensor.dtype} {list(tensor.shape)}", content)
    return digest.value


def _encode_settings(module: nn.Module) -> bytes:
    """Return the attributes of a module that are plain numbers, text or sequences, as bytes."""
    plain = (bool, int, float, str, tuple, list, types.NoneType)
    settings = {name: value for name, value in vars(module).items() if isinstance(value, plain)}
    return repr(sorted(settings.items())).encode()


def _qualified_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _encode_methods(kind: type) -> bytes:
    """Return the names and the bytecode of the methods that a class itself defines."""
    methods = {
        name: value for name, value in vars(kind).items() if isinstance(value, types.FunctionType)
    }
    return b"".join(
        name.encode() + _encode_code(method.__code__) for name, method in sorted(methods.items())
    )


def _encode_code(code: types.CodeType) -> bytes:
    names = ",".join((*code.co_names, *code.co_varnames)).encode()
    return code.co_code + names + b"".join(map(_encode_constant, code.co_consts))


def _encode_constant(value: Any) -> bytes:
    return _encode_code(value) if isinstance(value, types.CodeType) else repr(value).encode()

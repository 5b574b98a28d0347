"""Any torch module as a model: a copy of its own, and a hash that tells it from others."""

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
from wsi_unet.models.program_file import sha256_of
from wsi_unet.models.stored_network import ModelDigest, StoredModule

if TYPE_CHECKING:
    from wsi_unet.models.spec import ModelSpec


IN_PROCESS = "/a module of this process"
"""Where models seem to lie that are modules of this process."""


def model_from_module(module: nn.Module, spec: ModelSpec) -> Model:
    """Make a model of any torch module, to be used in this process.

    What is copied is its present state: training it on doesn't change the model.

    Args:
        module: takes (n, channels, h, w), scaled as the spec says, and returns
            (n, classes, h, w).
        spec: what it is. Its architecture is that of one of our networks or, for any other,
            what `measure_module` measured of it.

    Raises:
        ModelError: if it can't be copied, its weights aren't finite, or its output isn't what
            the spec says.
    """
    own = private_copy(module)
    check_module(own, type(module).__name__, spec)
    sha256 = hash_module(own, spec)
    # The same weights may be called otherwise; each spec has a place of its own.
    place = f"{IN_PROCESS}/{sha256_of((sha256 + spec.to_text()).encode())}"
    return keep_in_process(Model(spec, Path(place), sha256, StoredModule(own)))


def private_copy(module: nn.Module) -> nn.Module:
    """Return a copy in float32 and evaluation mode on the CPU.

    Raises:
        ModelError: if it is no module or can't be copied, or its weights aren't there yet or
            aren't finite.
    """
    name = type(module).__name__
    if not isinstance(module, nn.Module):
        raise ModelError(f"a {name} is no torch module; wrap it in one")
    if any(map(is_lazy, (*module.parameters(), *module.buffers()))):
        raise ModelError(f"{name} has layers without weights yet; run it once on an image")
    own = _copied(module).to(device="cpu", dtype=torch.float32).eval()
    for name, tensor in own.state_dict().items():
        if tensor.is_floating_point() and not all_finite(tensor):
            raise ModelError(f"{type(module).__name__}: {name} holds NaN or infinite numbers")
    for parameter in own.parameters():
        parameter.requires_grad_(False)
    return own


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # of whatever type: other people's classes
        reason = first_line(error)
        raise ModelError(f"{type(module).__name__} can't be copied: {reason}") from error


def check_module(own: nn.Module, name: str, spec: ModelSpec) -> None:
    """Run a module once and compare its output with what its spec says.

    Args:
        own: a private copy.
        name: its class, for messages.
        spec: what it is to be.

    Raises:
        ModelError: if it doesn't take a window, its output has another shape than the spec's, or
            has been through a head where the spec says otherwise.
    """
    side = window_side(spec, spec.tile or round_up(ROOM, spec.border().period))
    subject = wrap_network(own, spec.in_channels)
    try:
        shape = tuple(subject.run(subject.image(side)).shape)
    except Exception as error:  # of whatever type: other people's networks
        reason = first_line(error)
        raise ModelError(f"{name} fails on {side}×{side} px: {reason}") from error
    left = side - 2 * spec.border().shrink
    if shape != (spec.classes_out, left, left):
        raise ModelError(
            f"{name} makes {'×'.join(map(str, shape))} of {side}×{side} px; its spec asks for "
            f"{spec.classes_out}×{left}×{left}"
        )
    head = detect_head(subject, side)
    if head is not None and not spec.activated:
        raise ModelError(
            f"{name} ends in a {head} already: give its spec head={head!r} and activated=True"
        )
    if head is None and spec.activated:
        raise ModelError(
            f"{name} makes no probabilities (they aren't all in 0…1): give its spec activated=False"
        )


def hash_module(module: nn.Module, spec: ModelSpec) -> str:
    """Return the sha256 of a module: the spec, the state, the classes and their code.

    The code is Python's own, so another version of Python gives another hash.
    """
    digest = ModelDigest(spec)
    digest.add_content("structure", repr(module).encode())
    for name, part in module.named_modules():
        digest.add_content(name, _settings_of(part))
    for kind in sorted({type(part) for part in module.modules()}, key=_name_of):
        digest.add_content(_name_of(kind), _code_of(kind))
    for name, tensor in sorted(module.state_dict().items()):
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        digest.add_content(f"{name} {tensor.dtype} {list(tensor.shape)}", content)
    return digest.value


def _settings_of(module: nn.Module) -> bytes:
    """Return the plain numbers and words that a module keeps as attributes."""
    plain = (bool, int, float, str, tuple, list, types.NoneType)
    settings = {name: value for name, value in vars(module).items() if isinstance(value, plain)}
    return repr(sorted(settings.items())).encode()


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _code_of(kind: type) -> bytes:
    """Return what the class's own methods do, as far as Python's code objects say."""
    methods = {
        name: value for name, value in vars(kind).items() if isinstance(value, types.FunctionType)
    }
    return b"".join(
        name.encode() + _in_bytes(method.__code__) for name, method in sorted(methods.items())
    )


def _in_bytes(code: types.CodeType) -> bytes:
    names = ",".join((*code.co_names, *code.co_varnames)).encode()
    return code.co_code + names + b"".join(map(_constant, code.co_consts))


def _constant(value: Any) -> bytes:
    return _in_bytes(value) if isinstance(value, types.CodeType) else repr(value).encode()

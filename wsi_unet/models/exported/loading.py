"""Loading programs as torch modules: ONNX, and trusted TorchScript and torch.export.

Each becomes a module from (1, channels, h, w) to (1, classes, h, w) in float32; onnxruntime runs
ONNX.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from wsi_unet.errors import ModelError, OptionError, first_line
from wsi_unet.models.exported.onnx_file import check_onnx, parse_onnx
from wsi_unet.models.networks.folding import fold_batch_norm

if TYPE_CHECKING:
    from onnx import ModelProto


class ImageError(ModelError):
    """A program fails on an image, for example because it doesn't take images of that size."""


class Program(nn.Module):
    """A network that contains its weights and is run as it is.

    Args:
        path: the program's file, for messages.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def prepare(self, device: str, threads: int) -> Program:
        """Return this program, ready to run on a device.

        Args:
            device: "cpu" or "cuda:<index>".
            threads: cores that it may use for one image on the CPU.

        Raises:
            ModelError: the program can't be run.
            OptionError: what runs it isn't installed for that device.
        """
        raise NotImplementedError


class TorchProgram(Program):
    """A TorchScript or torch.export program.

    Args:
        path: the program's file.
        module: the loaded program.
    """

    def __init__(self, path: Path, module: nn.Module) -> None:
        super().__init__(path)
        self.module = module

    @override
    def prepare(self, device: str, threads: int) -> Program:
        self.module.to(device)  # on the CPU it uses the caller's threads
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Return the network's output."""
        return check_class_map(self.path, self.module(image.contiguous()))


class OnnxProgram(Program):
    """An ONNX program; `prepare` makes it runnable.

    Args:
        path: the program's file.
        content: the file's bytes.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(path)
        self._content = content
        self._session: Any = None

    @override
    def prepare(self, device: str, threads: int) -> OnnxProgram:
        prepared = OnnxProgram(self.path, self._content)
        # Opening a session optimises the program for the device.
        prepared._session = _open_session(self.path, self._content, device, threads)
        return prepared

    def proto(self) -> ModelProto:
        """Return the program as ONNX's protocol buffer."""
        return parse_onnx(self.path, self._content)

    def forward(self, image: Tensor) -> Tensor:
        """Return the network's output, on the device of the input.

        Raises:
            ImageError: onnxruntime fails.
        """
        pixels = image.contiguous().cpu().numpy()
        name = self._session.get_inputs()[0].name
        try:
            output = self._session.run(None, {name: pixels})[0]
        except Exception as error:  # onnxruntime's own types have no common base but this
            reason = first_line(error)
            if "allocate" in reason:
                raise torch.OutOfMemoryError(reason) from error
            raise ImageError(
                f"{self.path} fails on an image of {tuple(pixels.shape)}: {reason}"
            ) from error
        return check_class_map(self.path, torch.from_numpy(output)).to(image.device)


def load_program(path: Path, kind: str, content: bytes) -> Program:
    """Load a program. Warning: loading TorchScript and torch.export can run code.

    Args:
        path: the program's file, for messages.
        kind: "onnx", "torchscript" or "export".
        content: the file's bytes.

    Raises:
        ModelError: the program is damaged.
        OptionError: what runs it isn't installed.
    """
    return _LOADERS[kind](path, content)


def check_class_map(path: Path | str, output: object) -> Tensor:
    """Return a network's output, which has to be a map of classes.

    Raises:
        ModelError: the output is something else.
    """
    if not isinstance(output, Tensor) or output.ndim != 4:
        got = list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ModelError(
            f"{path} returns {got}; wrap the network so that it returns one tensor "
            "(n, classes, h, w)"
        )
    return output


@singledispatch
def prepare_network(
    network: nn.Module, *, device: str, dtype: torch.dtype, threads: int
) -> nn.Module:
    """Return a copy of a network on a device, with batch norm folded into the convolutions.

    Args:
        network: in evaluation mode, on the CPU; it isn't changed.
        device: "cpu" or "cuda:<index>".
        dtype: number type to compute in; exported programs stay float32.
        threads: cores for one image on the CPU.
    """
    prepared: nn.Module = fold_batch_norm(network).to(
        device=device,
        dtype=dtype,
        memory_format=torch.channels_last,  # type: ignore[call-overload]
    )
    return prepared


@prepare_network.register
def _(network: Program, *, device: str, dtype: torch.dtype, threads: int) -> nn.Module:
    return network.prepare(device, threads)


def _load_onnx(path: Path, content: bytes) -> Program:
    check_onnx(path, content)
    return OnnxProgram(path, content)


def _load_torchscript(path: Path, content: bytes) -> Program:
    module = _load_quietly(
        path,
        lambda: torch.jit.load(  # type: ignore[no-untyped-call]
            io.BytesIO(content), map_location="cpu"
        ),
    )
    return TorchProgram(path, module.eval())


def _load_export(path: Path, content: bytes) -> Program:
    module = _load_quietly(path, lambda: torch.export.load(io.BytesIO(content)).module())
    return TorchProgram(path, module)


def _load_quietly(path: Path, load: Callable[[], Any]) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript's deprecation
            module: nn.Module = load()
    except Exception as error:  # of any type: PyTorch loads an untrusted file
        reason = first_line(error)
        raise ModelError(f"PyTorch can't load {path}: {reason}") from error
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


_LOADERS: dict[str, Callable[[Path, bytes], Program]] = {
    "onnx": _load_onnx,
    "torchscript": _load_torchscript,
    "export": _load_export,
}


def _open_session(path: Path, content: bytes, device: str, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise OptionError(
            f"{path} is an ONNX program, which needs more packages: pip install 'wsi-unet[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Threads that spin while they wait take the cores from reading and writing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            content, options, providers=_providers(path, device, onnxruntime)
        )
    except OptionError:
        raise
    except Exception as error:  # onnxruntime's own types have no common base but this
        reason = first_line(error)
        raise ModelError(f"onnxruntime can't open {path}: {reason}") from error


def _providers(path: Path, device: str, onnxruntime: Any) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise OptionError(
            f"{path}: this onnxruntime can't use {device}; use `device=cpu`, or install "
            "onnxruntime-gpu in its place",
            option="device",
        )
    index = device.partition(":")[2] or "0"
    # TF32 is not float32.
    return [
        ("CUDAExecutionProvider", {"device_id": index, "use_tf32": "0"}),
        "CPUExecutionProvider",
    ]

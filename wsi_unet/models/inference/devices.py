"""Devices: finding them, choosing the number type for each, and computing exactly on them.

Torch's settings for float32 belong to the process, so `full_float32` counts for the whole process
how many threads need them (`_FULL_FLOAT32`, module state for that reason).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast, get_args

import torch

from wsi_unet.cores import usable_cores
from wsi_unet.errors import OptionError
from wsi_unet.models.inference.device_names import parse_device_name
from wsi_unet.models.number_types import Precision
from wsi_unet.wording import count


@dataclass(frozen=True)
class DeviceInfo:
    """One device that a model could run on.

    Attributes:
        name: as the option `device` takes it: "cpu", or "cuda:0".
        description: the processor's own name.
        memory: bytes; None for the CPU, where the process's limits count.
        matrix_units: whether bfloat16 is worth using on it; see `has_matrix_units`.
        precision: the number type that "auto" chooses on it.
    """

    name: str
    description: str
    memory: int | None
    matrix_units: bool
    precision: Precision


def resolve_device(name: str = "auto") -> str:
    """Return the device that a name means on this machine, as "cpu" or "cuda:<index>".

    Args:
        name: "auto" (the first GPU, or else the CPU), "cpu", "cuda" or "cuda:<index>".

    Raises:
        OptionError: the name is none of these, or there is no such device here.
    """
    wanted = parse_device_name(name)
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.kind == "cpu" or (wanted.kind == "auto" and not devices):
        return "cpu"
    index = wanted.index or 0
    if index >= devices:
        raise OptionError(
            f"device {name!r} isn't here: torch {torch.__version__} sees "
            f"{count(devices, 'CUDA device')}; use `device=cpu`, or install a torch built for the "
            "GPU's driver",
            option="device",
        )
    return f"cuda:{index}"


def has_matrix_units(device: str) -> bool:
    """Return whether `device` computes bfloat16 fast: CUDA compute capability 8.0 or more, or AMX.

    A CPU with AVX512-BF16 alone has no matrix unit: bfloat16 doubled the speed where it was
    measured, which is too little to give up float32's exactness unasked.
    """
    if device == "cpu":
        return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return torch.cuda.get_device_capability(device) >= (8, 0)


def unfolds_convolutions(device: str, precision: str) -> bool:
    """Return whether convolutions unfold their input into columns (im2col) before multiplying.

    oneDNN computes 16-bit convolutions on x86 only where there is AVX-512 or AVX-NE-CONVERT;
    elsewhere PyTorch falls back to unfolding, which takes several times the memory and time.
    """
    if device != "cpu" or precision == "float32":
        return False
    has = torch.cpu.get_capabilities()
    if has.get("architecture") != "x86_64":
        return False
    avx512 = all(has.get(f"avx512_{part}", False) for part in ("bw", "vl", "dq"))
    return not (avx512 or has.get("avx_ne_convert", False))


def resolve_precision(
    name: str, device: str, possible: Collection[Precision] = get_args(Precision)
) -> Precision:
    """Return the number type that a name means on a resolved device.

    Args:
        name: "auto", "float32", "bfloat16" or "float16".
        device: "cpu" or "cuda:<index>".
        possible: the number types that the network can run in (`ModelSpec.precisions`).

    Raises:
        OptionError: the name is none of these, the network can't run in it, or it is float16 on a
            CPU that doesn't compute in it (torch then needs several times the time and memory of
            float32).
    """
    if name == "auto":
        return "bfloat16" if "bfloat16" in possible and has_matrix_units(device) else "float32"
    if name not in get_args(Precision):
        known = ", ".join(("auto", *get_args(Precision)))
        raise OptionError(f"precision {name!r} is none of {known}", option="precision")
    if name not in possible:
        raise OptionError(
            f"precision {name!r}: an exported program computes in the number type it was saved in, "
            f"{' or '.join(possible)}; leave `precision` out",
            option="precision",
        )
    capabilities = torch.cpu.get_capabilities()
    if name == "float16" and device == "cpu" and not capabilities.get("avx512_fp16", False):
        raise OptionError(
            "this CPU doesn't compute in float16; use `precision=bfloat16` or float32",
            option="precision",
        )
    return cast("Precision", name)


def describe_device(device: str) -> str:
    """Return the processor's own name of "cpu" or "cuda:<index>"."""
    if device == "cpu":
        return str(torch.cpu.get_capabilities().get("cpu_name", "CPU"))
    return str(torch.cuda.get_device_properties(device).name)


def identify_device(device: str) -> str:
    """Return the processor's name and a hash of what torch knows of it.

    That is all of a CPU; of a GPU its memory and compute capability.
    """
    known: Any = torch.cpu.get_capabilities() if device == "cpu" else None
    if known is None:
        properties = torch.cuda.get_device_properties(device)
        known = [properties.total_memory, properties.major, properties.minor]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()
    return f"{describe_device(device)} {digest[:16]}"


def describe_devices() -> list[DeviceInfo]:
    """Return every device of this machine, first the one that "auto" means."""
    cpu = describe_device("cpu")
    devices: list[tuple[str, str, int | None]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices.append((f"cuda:{index}", properties.name, properties.total_memory))
    devices.append(("cpu", f"{cpu}, {count(usable_cores(), 'core')}", None))
    return [
        DeviceInfo(
            name, description, memory, has_matrix_units(name), resolve_precision("auto", name)
        )
        for name, description, memory in devices
    ]


def get_free_memory(device: str) -> int | None:
    """Return the free bytes of a CUDA device; None for the CPU, whose memory is the host's."""
    if device == "cpu":
        return None
    # What torch holds for reuse is as good as free.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that a device ran out of memory."""
    # The CPU's allocator and NVIDIA's libraries raise a plain RuntimeError.
    signs = ("can't allocate memory", "_STATUS_ALLOC_FAILED", "CUDA out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def measure_matmul_rate(device: str, precision: Precision, seconds: float = 0.3) -> float:
    """Return how fast `device` multiplies large square matrices, FLOP/s.

    Args:
        device: "cpu" or "cuda:<index>".
        precision: the number type of the matrices.
        seconds: how long to measure.
    """
    side = 1024 if device == "cpu" else 8192
    dtype = getattr(torch, precision)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    with torch.inference_mode(), full_float32(), cpu_threads(usable_cores()):
        left @ right
        synchronize(device)
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds or not count:
            left @ right
            synchronize(device)
            count += 1
    return float(2 * side**3 * count / elapsed) if elapsed else 0.0


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next arrays, and return whether it can.

    glibc takes fresh memory from the kernel for every array above 32 MiB, and the kernel zeroes it
    page by page: page faults took up to 40 % of a forward pass on a CPU (see the documentation's
    page on performance). Afterwards the process stays as large as it once was (freed memory beyond
    1 GiB goes back), so this is for processes that only segment. Call it before threads start: a
    thread that has allocated memory keeps its old settings.
    """
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    settings = {m_arena_max: 1, m_mmap_max: 0, m_trim_threshold: 2**30}
    accepted = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(accepted)


def synchronize(device: str) -> None:
    """Wait until a CUDA device has finished its work; on the CPU there is nothing to wait for."""
    if device != "cpu":
        torch.cuda.synchronize(device)


class _FullFloat32:
    """Counts the threads that need exact float32, and keeps the settings from before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[str] = []

    @staticmethod
    def _settings() -> list[Any]:
        backends: Any = torch.backends  # its types don't know all of it
        # `fp32_precision`, not `allow_tf32`: torch refuses to mix the two ways in one process.
        return [
            backends.cudnn.conv,
            backends.cuda.matmul,
            backends.mkldnn.conv,
            backends.mkldnn.matmul,
        ]

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = [setting.fp32_precision for setting in self._settings()]
                for setting in self._settings():
                    setting.fp32_precision = "ieee"
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for setting, value in zip(self._settings(), self._before, strict=True):
                    setting.fp32_precision = value


_FULL_FLOAT32 = _FullFloat32()


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 without rounding to shorter types while the context lasts.

    CUDA convolutions round their inputs to TF32 by default (torch.backends.cudnn), and a
    process may have allowed TF32 or bfloat16 for matrix products and for oneDNN. The process's
    own settings are restored when the last thread leaves its context.
    """
    _FULL_FLOAT32.enter()
    try:
        yield
    finally:
        _FULL_FLOAT32.leave()


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let the calling thread compute on `count` cores while the context lasts.

    OpenMP's count belongs to the thread that sets it and starts at OMP_NUM_THREADS, which
    Dask's worker processes set to 1; therefore it is set wherever the network runs.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

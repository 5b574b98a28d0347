"""Running an untrusted ONNX program for the first time, in a process with little memory.

A few bytes of a program can stand for terabytes in many ways (computed shapes, ranges, padding,
constants of nested graphs), which show only when it is opened or run.

The process runs this module as a script (`python -m wsi_unet.models.exported.vetting`), therefore
nothing here imports torch.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wsi_unet.errors import ModelError

MEMORY = 3 * 2**28
"""Bytes that a process needs to run anything."""

MEMORY_PER_PIXEL = 8192
"""Bytes that a network may take per px of its input."""

COPIES = 4
"""Copies of a program's weights that may exist at once."""

SIDE = 256
"""Side of the image that a program is tried on, px, unless it takes one side only."""

TIMEOUT = 300
"""Seconds after which a program is stopped."""

TOO_MUCH_MEMORY = 3
"""Exit code for a program that needs more memory than it may have."""

_SIGNS = ("bad_alloc", "allocat", "memory", "requested bytes", "vector::")


def vet_onnx(path: Path, content: bytes, in_channels: int, side: int | None) -> None:
    """Run a checked ONNX program once, in a process of its own with limited memory.

    Failing on the image is allowed: using the program will report that.

    Args:
        path: the program's file, for messages.
        content: the file's bytes.
        in_channels: channels of its input.
        side: the only side of its input, px; None for any side.

    Raises:
        ModelError: the program needs more memory or time than networks do, or ends its process.
    """
    side = side or SIDE
    memory = MEMORY + MEMORY_PER_PIXEL * side**2 + COPIES * len(content)
    # -P: nothing is imported from the current folder.
    command = [sys.executable, "-P", "-m", __name__, str(memory), str(in_channels), str(side)]
    try:
        run = subprocess.run(command, input=content, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"{path} takes more than {TIMEOUT} s for {side}×{side} px; it isn't run"
        ) from error
    if run.returncode == TOO_MUCH_MEMORY or run.returncode < 0:
        raise ModelError(
            f"{path} needs more than {memory / 2**30:.1f} GiB of memory for {side}×{side} px; "
            "it isn't run"
        )
    if run.returncode:
        reason = (run.stderr.decode(errors="replace").splitlines() or ["no reason given"])[-1]
        raise ModelError(f"{path} can't be tested before use: {reason}")


def _limit_memory(more: int) -> None:
    """Limit this process to `more` bytes beyond what it has, where the platform can do that."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _main(memory: int, in_channels: int, side: int) -> int:
    import numpy as np

    try:
        import onnxruntime
    except ImportError:
        return 0
    content = sys.stdin.buffer.read()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    image = np.random.default_rng(0).standard_normal((1, in_channels, side, side), np.float32)
    _limit_memory(memory)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        session.run(None, {session.get_inputs()[0].name: image})
    except MemoryError:
        return TOO_MUCH_MEMORY
    except Exception as error:  # onnxruntime's own types have no common base but this
        # Whoever opens the program next reports anything else that is wrong with it.
        return TOO_MUCH_MEMORY if any(sign in str(error) for sign in _SIGNS) else 0
    return 0


if __name__ == "__main__":
    sys.exit(_main(*map(int, sys.argv[1:])))

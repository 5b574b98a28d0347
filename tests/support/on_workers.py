"""Functions that tests run on workers, and ways to make a worker differ from others."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def environment(name: str) -> str | None:
    """Return an environment variable of the worker."""
    return os.environ.get(name)


def scratch_folder(dask_worker: Any) -> str:
    """Return the folder in which the worker keeps its files."""
    return str(dask_worker.local_directory)


def threads_of_a_forward(model: str, processes_per_core: int) -> int:
    """Return the number of threads that torch uses while the network runs in a task."""
    import numpy as np
    import torch

    from wsi_unet.geometry import Box
    from wsi_unet.models.inference.ensemble import Ensemble
    from wsi_unet.models.model import load_model
    from wsi_unet.segmentation.worker.task import get_predictor

    loaded = load_model(model)
    predictor = get_predictor(
        loaded.sha256,
        lambda: Ensemble((loaded,)),
        tta="none",
        device="cpu",
        precision="float32",
        processes_per_core=processes_per_core,
    )
    seen: list[int] = []
    hook = predictor.networks[0].module.register_forward_pre_hook(
        lambda *_: seen.append(torch.get_num_threads())
    )
    core = predictor.border.core(Box(0, 0, 64, 64))
    window = predictor.border.window(core, (64, 64))
    pixels = np.zeros((*window.shape, 3), np.uint8)
    predictor.predict(pixels, window, core, (64, 64))
    hook.remove()
    (threads,) = seen
    return threads


def dask_setup(worker: Any) -> None:
    """Change the process as WSI_UNET_TEST_WORKER says; for `dask worker --preload`."""
    for change in os.environ.get("WSI_UNET_TEST_WORKER", "").split():
        name, _, value = change.partition("=")
        if name == "cores":
            pretend_cores(int(value))
        elif name == "hidden":
            hide(value)
        else:
            pretend_version(name, value)


def pretend_cores(count: int) -> None:
    """Let the machine seem to have this number of cores."""
    import dask.system

    dask.system.cpu_count = lambda: count


def pretend_version(package: str, version: str) -> None:
    """Let a package seem to be installed in another version; "none": not at all."""
    from distributed import versions

    real = versions._version_cached

    def pretended(name: str) -> str | None:
        return (None if version == "none" else version) if name == package else real(name)

    setattr(versions, "_version_cached", pretended)  # noqa: B010


def hide(package: str) -> None:
    """Make a package unimportable."""

    class Hidden:
        def find_spec(
            self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            return None

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    sys.meta_path.insert(0, Hidden())

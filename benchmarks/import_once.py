"""Import a checkpoint in this process: `python -m benchmarks.import_once CHECKPOINT MODEL`.

With --make BASE, it only writes such a checkpoint, of a network whose first level has BASE
channels, so that this happens in another process. Otherwise it prints the seconds and the growth of
the peak memory, both counted after torch and the package were imported, as a JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import torch

from wsi_unet.models import UNetConfig, build_network, save_model
from wsi_unet.models.importing.checkpoints import import_checkpoint
from wsi_unet.models.importing.hints import ImportHints


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--make", type=int, metavar="BASE")
    given = parser.parse_args()
    if given.make:
        config = UNetConfig(padding="same", norm="batch", base_width=given.make)
        torch.save(build_network(config).state_dict(), given.checkpoint)
        return
    before, start = _peak(), time.perf_counter()
    network, spec = import_checkpoint(given.checkpoint, ImportHints(padding="same"))
    save_model(network, spec, given.model)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "bytes": _peak() - before}))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()

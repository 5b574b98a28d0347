"""Write a finished result with made-up nuclei: `python -m benchmarks.nuclei OUT --side 8192`.

Labels are ellipses 8 to 14 µm long at 0.5 µm per pixel on a jittered grid, so some touch; the same
for the same seed. They are written as `segment` writes them.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.labels.layout import create_labels, ensure_root, mark_finished
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.progress import BlockMarker, Progress, RunRecord
from wsi_unet.labels.pyramid import Pyramid, reduce_mode
from wsi_unet.labels.writer import build_tail, write_block
from wsi_unet.storage.local_store import LocalStore

NAME = "nuclei"
PIXEL = 0.5
"""µm per pixel."""
LENGTHS = (8.0, 14.0)
"""µm: the least and the greatest length of a nucleus."""
ROUNDEST, FLATTEST = 1.0, 0.65
"""Width of a nucleus ÷ its length."""
JITTER = 0.35
"""How far a nucleus may lie from its place on the grid, in steps of the grid."""
CREATED = "2026-01-02T03:04:05+00:00"


@dataclass(frozen=True)
class NucleusClass:
    """The meaning of a label value."""

    value: int
    name: str
    color: str = "#2a6fdb"


LABEL_CLASSES = (NucleusClass(0, "background"), NucleusClass(1, "nuclei"))


def draw_nuclei(side: int, per_mpx: float, seed: int = 0) -> NDArray[np.uint8]:
    """Return labels (side, side) with nuclei, `per_mpx` of them on 10⁶ px."""
    random, labels = np.random.default_rng(seed), np.zeros((side, side), np.uint8)
    step = 1000 / math.sqrt(per_mpx)
    count = int(side / step)
    reach = math.ceil(LENGTHS[1] / PIXEL / 2) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    for row in range(count):
        places = random.uniform(0.5 - JITTER, 0.5 + JITTER, (count, 2))
        shapes = random.uniform(
            (*LENGTHS[:1], FLATTEST, 0), (LENGTHS[1], ROUNDEST, np.pi), (count, 3)
        )
        for column, ((dy, dx), (length, width, angle)) in enumerate(
            zip(places, shapes, strict=True)
        ):
            top, left = int((row + dy) * step) - reach, int((column + dx) * step) - reach
            along = x * math.cos(angle) + y * math.sin(angle)
            across = y * math.cos(angle) - x * math.sin(angle)
            inside = along**2 + (across / width) ** 2 <= (length / PIXEL / 2) ** 2
            y0, x0 = max(0, -top), max(0, -left)
            part = labels[top + y0 : top + 2 * reach + 1, left + x0 : left + 2 * reach + 1]
            part[inside[y0:, x0:][: part.shape[0], : part.shape[1]]] = 1
    return labels


def write_result(path: Path, labels: NDArray[np.uint8], block: int) -> None:
    """Write labels (h, w) as a finished result in blocks of `block` px."""
    store, pyramid = LocalStore(path), Pyramid((labels.shape[0], labels.shape[1]), block)
    slide: dict[str, Any] = {
        "name": NAME,
        "fingerprint": NAME,
        "shape": [*labels.shape],
        "mpp": [PIXEL] * 2,
    }
    ensure_root(store, {"slide": slide})
    frame = Frame.from_downsample((1.0, 1.0), (PIXEL, PIXEL))
    create_labels(store, NAME, pyramid, frame, LABEL_CLASSES, {"slide": slide})
    progress = Progress(store, NAME)
    for index in pyramid.grid:
        part = labels[pyramid.grid.core(index).slices()]
        shards = write_block(store, f"labels/{NAME}", pyramid, index, part, reduce_mode)
        marker = BlockMarker(
            block=index, signature="0", counts=(), seconds={}, attempts=1, shards=shards
        )
        progress.write_marker(marker)
    build_tail(store, f"labels/{NAME}", pyramid, reduce_mode)
    parameters: dict[str, Any] = {"regions": [], "block": block, "tissue": "none"}
    progress.write_run(RunRecord(name=NAME, signature="0", parameters=parameters, created=CREATED))
    mark_finished(store, NAME, np.bincount(labels.ravel(), minlength=2).tolist(), CREATED)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--side", type=int, default=8192, help="px")
    parser.add_argument("--block", type=int, default=4096, help="px")
    parser.add_argument("--density", type=float, default=600.0, help="nuclei per 10^6 px")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_result(given.output, draw_nuclei(given.side, given.density, given.seed), given.block)


if __name__ == "__main__":
    main()

"""Memory of client and worker while they find more and more objects.

One block of made-up nuclei is stored again and again, as often as it takes; nuclei at its edges
join those of the next block. A worker process finds them, so its peak is apart from the client's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import GIB, Row, Scale, emit, parse_scale, run_module, tell, workspace

NAME = "object_memory"
BLOCK = 2048
DENSITY = 1100.0
"""Nuclei per 10⁶ px, so that 10⁷ of them lie on 10 Gpx."""

OBJECTS = (100_000, 1_000_000, 10_000_000)
TINY_OBJECTS = (2_000, 8_000)
LARGEST = 2.0
"""GiB that neither process may reach."""

FLAT = 1.1
"""How much more than for the fewest objects a process may take for the most."""


def measure_rows(scale: Scale) -> Iterator[Row]:
    found: list[dict[str, float]] = []
    for objects in TINY_OBJECTS if scale.tiny else OBJECTS:
        with workspace() as folder:
            side = math.ceil(math.sqrt(objects / DENSITY * 1e6 / BLOCK**2))
            tell(f"  {objects} objects: {side}² blocks of {BLOCK}² px")
            write_repeated(folder / "out.ome.zarr", (side, side))
            found.append(dict(run_module(NAME, "--find", folder / "out.ome.zarr").document))
        last = found[-1]
        detail = (
            f"{last['objects']:.0f} objects on {(side * BLOCK) ** 2 / 1e9:.2f} Gpx in "
            f"{last['seconds']:.0f} s"
        )
        for who in ("client", "worker"):
            what = f"peak memory of the {who}, {objects} objects"
            yield Row(NAME, what, last[who] / GIB, "GiB", most=LARGEST, detail=detail)
    for who in ("client", "worker"):
        ratio = found[-1][who] / found[0][who]
        yield Row(NAME, f"{who}: most ÷ fewest objects", ratio, "×", most=FLAT)


def write_repeated(path: Path, blocks: tuple[int, int]) -> None:
    """Write a finished result of (rows, columns) blocks, which are all the same."""
    from benchmarks.nuclei import CREATED, LABEL_CLASSES, PIXEL, draw_nuclei
    from benchmarks.nuclei import NAME as LABEL
    from wsi_unet.labels.layout import create_labels, ensure_root, mark_finished
    from wsi_unet.labels.metadata import Frame
    from wsi_unet.labels.progress import BlockMarker, Progress, RunRecord
    from wsi_unet.labels.pyramid import Pyramid, shard_key
    from wsi_unet.labels.shards import ShardRecord, encode_shard
    from wsi_unet.storage.local_store import LocalStore

    labels = draw_nuclei(BLOCK, DENSITY)
    shape = blocks[0] * BLOCK, blocks[1] * BLOCK
    store, pyramid = LocalStore(path), Pyramid(shape, BLOCK)
    ensure_root(store, {})
    frame = Frame.from_downsample((1.0, 1.0), (PIXEL, PIXEL))
    slide: dict[str, Any] = {
        "name": LABEL,
        "fingerprint": LABEL,
        "shape": [*shape],
        "mpp": [PIXEL] * 2,
    }
    create_labels(store, LABEL, pyramid, frame, LABEL_CLASSES, {"slide": slide})
    shard, progress = encode_shard(labels, BLOCK), Progress(store, LABEL)
    assert shard is not None
    record = ShardRecord.from_shard(shard)
    for index in pyramid.grid:
        key = shard_key(f"labels/{LABEL}", 0, index, False)
        store.put(key, shard)
        marker = BlockMarker(
            block=index, signature="0", counts=(), seconds={}, attempts=1, shards={key: record}
        )
        progress.write_marker(marker)
    parameters: dict[str, Any] = {"regions": [], "block": BLOCK, "tissue": "none"}
    progress.write_run(RunRecord(name=LABEL, signature="0", parameters=parameters, created=CREATED))
    counts = np.bincount(labels.ravel(), minlength=2) * len(pyramid.grid)
    mark_finished(store, LABEL, counts.tolist(), CREATED)


def find() -> None:
    """Find the objects in one worker process; print peaks in bytes as a JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--find", type=Path, required=True)
    given = parser.parse_args()
    import wsi_unet

    start = time.perf_counter()
    report = wsi_unet.find_objects(given.find, cluster=wsi_unet.ClusterOptions(workers=1))
    peaks = {
        name: resource.getrusage(who).ru_maxrss * 1024
        for name, who in (("client", resource.RUSAGE_SELF), ("worker", resource.RUSAGE_CHILDREN))
    }
    objects = sum(each.objects for each in report.labels)
    print(json.dumps({**peaks, "objects": objects, "seconds": time.perf_counter() - start}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    if "--find" in sys.argv:
        find()
    else:
        emit(measure_rows(parse_scale()))

"""Images much larger than memory are counted chunk by chunk."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json
from pathlib import Path
import dask.array as da
import numpy as np
import xarray as xr
import wsi_unet
from wsi_unet.evaluation import run  # imports aren't measured

SIDE = 20_000
made = []

def stripes(block_info=None, step=0):
    (y0, y1), (x0, x1) = block_info[None]["array-location"]
    made.append((y0, x0))
    rows, columns = np.arange(y0, y1)[:, None], np.arange(x0, x1)
    return ((rows // 100 + (columns + step) // 150) % 3).astype(np.uint8)

def labels(step):
    array = da.map_blocks(stripes, chunks=((1000,) * 20,) * 2, dtype=np.uint8, step=step,
                          meta=np.zeros((0, 0), np.uint8))
    return xr.DataArray(array, dims=("y", "x"))

def peak():
    # Not getrusage, whose peak is inherited from the parent process.
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1])

pair = labels(0), labels(50)
assert not made
small = [part[:2000, :2000] for part in pair]
wsi_unet.evaluate(*small, tolerance=None)
before = peak()
found = wsi_unet.evaluate(*pair, tolerance=None)
print(json.dumps({"kib": peak() - before, "found": found.to_json(), "made": len(made)}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_doesnt_grow_with_the_image() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=500
    )
    answer = json.loads(done.stdout)
    found = answer["found"]
    assert found["pixels"] == 20_000**2
    assert sum(sum(row) for row in found["confusion"]) == 20_000**2
    # The stripes are 150 px wide and 50 px off.
    assert found["pixel_error"] == pytest.approx(1 / 3, abs=0.01)
    # Both images together have 800 MB; a box of 2000 px has 4, times what counting needs of it.
    assert answer["kib"] < 200 * 1024
    # Lazy until then, and each chunk once: of the two images, after those of the small ones.
    assert answer["made"] == 2 * 400 + 2 * 4

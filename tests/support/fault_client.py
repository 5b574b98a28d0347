"""`wsi-unet` for the fault harness, which sets how long it waits for blocks and lets stores fail.

Its argument is a JSON object with "arguments" of the command line, the folder "orders", the
seconds "deadline" and "slow" (see `Limits`), and the "core" that it is bound to, or null.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from support.fault_orders import Orders
from support.fault_preload import make_store_fail

from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.runs import cohort
from wsi_unet_cli.main import main as command_line


def main() -> None:
    """Run the command."""
    job = json.loads(sys.argv[1])
    if job["core"] is not None and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[job["core"] % len(cores)]})
    cohort.LIMITS = Limits(
        shortest_deadline=job["deadline"], straggler_seconds=job["slow"], look_seconds=1.0
    )
    make_store_fail(Orders(Path(job["orders"])))
    sys.argv = ["wsi-unet", *job["arguments"]]
    command_line()


if __name__ == "__main__":
    main()

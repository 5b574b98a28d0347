"""Measure the speed of whole trainings against nothing but forward and backward passes.

Trainings are run as a user would run them, on the three nuclei fields of the tests. Their speed is
read from the journal, between an early iteration and the last, so the start and the measurement
at the end don't count. In turns with them, the same network passes forward and backward over one
batch of the same size again and again, without samples, optimiser or any loss but a mean.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ROOT,
    Row,
    Scale,
    emit,
    format_spread,
    median,
    parse_scale,
    run_command,
    run_in_turns,
    run_module,
    workspace,
)

NAME = "training"
LEAST_SHARE = 0.85
DATA = ROOT / "tests" / "data" / "nuclei_he"

RECIPE = """
base = "{base}"
name = "benchmark"
background = "background"
mpp = 0.5

[[classes]]
name = "background"
color = "#ffffff"

[[classes]]
name = "nuclei"
color = "#ffd700"

[[data]]
images = "images"
labels = "instances"
kind = "instances"
object_diameter = 6.5

[split]
folds = 1

[running]
validate_every = 100000
"""


@dataclass(frozen=True)
class Case:
    """A training to measure.

    Attributes:
        what: its description, for people.
        base: the recipe that it is based on.
        settings: settings that differ from that recipe.
        iterations: number of iterations that are timed.
    """

    what: str
    base: str
    settings: tuple[str, ...]
    iterations: int


CASES = (
    Case("modern, 32 wide, 8 tiles of 256 px", "modern", (), 8),
    Case("paper, 16 wide, a tile of 388 px", "paper", ("network.base_width=16",), 60),
    Case(
        "as for micrographs: modern, padded, 16 wide, 2 tiles of 384 px",
        "modern",
        (
            "network.padding=same",
            "network.base_width=16",
            "sampling.tile=384",
            "sampling.batch=2",
            "warping.scaled=0.3",
            "colouring.blur=0.8",
            "weighting.separation=3.0",
            "running.precision=bfloat16",
        ),
        40,
    ),
    Case(
        "nuclei-he, 16 wide, 8 tiles of 156 px",
        str(ROOT / "workflows" / "training" / "nuclei_he.toml"),
        (),
        40,
    ),
)

TINY = Case(
    "modern, tiny",
    "modern",
    ("network.base_width=2", "network.depth=1", "sampling.tile=32", "sampling.batch=2"),
    3,
)

FIRST = 6
"""Iterations that aren't timed: kernels are built, and samples made in advance are used up."""


def measure_rows(scale: Scale) -> Iterator[Row]:
    for case in (TINY,) if scale.tiny else CASES:
        with workspace() as folder:
            recipe = folder / "recipe.toml"
            recipe.write_text(RECIPE.format(base=case.base), encoding="utf-8")
            waits: list[float] = []
            speeds = run_in_turns(
                {
                    "training": partial(_time_training, recipe, case, folder / "model", waits),
                    "network": partial(_time_network, recipe, case),
                },
                scale,
            )
        share = median(speeds["training"]) / median(speeds["network"])
        waited = 100 * median(waits)
        ours, alone = (format_spread(speeds[name]) for name in ("training", "network"))
        yield Row(
            NAME,
            f"{case.what}: training ÷ network alone",
            share,
            "",
            least=LEAST_SHARE,
            detail=f"{ours} against {alone} iterations/s; {waited:.1f} % of the time waiting for "
            "samples",
        )


def _time_training(recipe: Path, case: Case, model: Path, waits: list[float]) -> float:
    """Return the iterations per second of a training, and add its share of waiting to `waits`."""
    last = FIRST + case.iterations
    settings = [f"--set={setting}" for setting in (*case.settings, f"running.iterations={last}")]
    run_command("train", recipe, "--data", DATA, "-o", model, "--overwrite", "-q", *settings)
    with (model / "training" / "journal.csv").open(newline="", encoding="utf-8") as file:
        journal = list(csv.DictReader(file))
    first, end = (float(journal[row - 1]["seconds"]) for row in (FIRST, last))
    # The journal has the share of the time since the start.
    share, whole_share = (float(journal[row - 1]["waited"]) for row in (FIRST, last))
    waits.append((whole_share * end - share * first) / (end - first))
    return case.iterations / (end - first)


def _time_network(recipe: Path, case: Case) -> float:
    settings = [f"--set={setting}" for setting in case.settings]
    done = run_module("training", "--time", recipe, "--iterations", str(case.iterations), *settings)
    return float(done.document["per_s"])


def time_passes() -> None:
    """Time forward and backward passes, in a child process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--time", type=Path, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()

    import torch

    from wsi_unet.models.inference.devices import (
        cpu_threads,
        full_float32,
        keep_freed_memory,
        synchronize,
    )
    from wsi_unet.training.augmentation.samples import sample_sides
    from wsi_unet.training.loop.learner import Learner
    from wsi_unet.training.recipe_file import read_recipe
    from wsi_unet.training.runtime import choose_runtime

    keep_freed_memory()
    recipe = read_recipe(given.time, given.set)
    setting = choose_runtime(recipe)
    learner = Learner(recipe, [], device=setting.device, precision=setting.precision)
    side = sample_sides(recipe.network, recipe.sampling.tile).image
    shape = (recipe.sampling.batch, recipe.network.in_channels, side, side)
    image = torch.randn(shape).to(setting.device, memory_format=torch.channels_last)
    network = learner.network.train()

    def pass_once() -> None:
        with learner.autocast():
            output = network(image)
        loss: Any = output.float().mean()
        loss.backward()

    with full_float32(), cpu_threads(setting.threads):
        for _ in range(3):
            pass_once()
        synchronize(setting.device)
        start = time.perf_counter()
        for _ in range(given.iterations):
            pass_once()
        synchronize(setting.device)
    print(json.dumps({"per_s": given.iterations / (time.perf_counter() - start)}))


if __name__ == "__main__":
    if "--time" in sys.argv:
        time_passes()
    else:
        emit(measure_rows(parse_scale()))

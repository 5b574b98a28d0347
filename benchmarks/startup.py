"""Measure how long commands take that do next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.common import (
    Row,
    Scale,
    emit,
    format_spread,
    median,
    parse_scale,
    run_command,
    run_in_turns,
    run_process,
)
from benchmarks.layouts import EXAMPLE

NAME = "start-up"
BARS = {"wsi-unet --help": 0.5, "wsi-unet info": 1.5, "import wsi_unet": 0.5}


def measure_rows(scale: Scale) -> Iterator[Row]:
    commands: dict[str, Callable[[], float]] = {
        "wsi-unet --help": lambda: run_command("--help").seconds,
        "wsi-unet info": lambda: run_command("info", EXAMPLE).seconds,
        "import wsi_unet": lambda: run_process(sys.executable, "-c", "import wsi_unet").seconds,
        "python -c pass": lambda: run_process(sys.executable, "-c", "pass").seconds,
    }
    run_command("info", EXAMPLE)  # fills the page cache
    seconds = run_in_turns(commands, replace(scale, repeats=1 if scale.tiny else 3 * scale.repeats))
    for name, values in seconds.items():
        yield Row(
            NAME, name, median(values), "s", most=BARS.get(name), detail=format_spread(values)
        )


if __name__ == "__main__":
    emit(measure_rows(parse_scale()))

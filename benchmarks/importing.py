"""Measure the time and memory that importing a checkpoint of 31 million parameters takes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Row,
    Scale,
    emit,
    format_spread,
    median,
    parse_scale,
    run_module,
    run_undisturbed,
    workspace,
)

NAME = "importing"
MOST_SECONDS = 3.0
MOST_COPIES = 2.0


def measure_rows(scale: Scale) -> Iterator[Row]:
    with workspace() as folder:
        checkpoint = folder / "weights.pth"
        run_module("import_once", checkpoint, "--make", "8" if scale.tiny else "64")
        size = checkpoint.stat().st_size
        models = [folder / f"model-{turn}" for turn in range(scale.repeats)]
        documents = [
            run_undisturbed(partial(_import, checkpoint, model), scale)[0] for model in models
        ]
        seconds = [float(document["seconds"]) for document in documents]
        copies = [float(document["bytes"]) / size for document in documents]
        what = f"a checkpoint of {size / 2**20:.0f} MiB"
        yield Row(
            NAME, what, median(seconds), "s", most=MOST_SECONDS, detail=format_spread(seconds)
        )
        yield Row(
            NAME,
            f"{what}: memory ÷ size",
            median(copies),
            "×",
            most=MOST_COPIES,
            detail=format_spread(copies),
        )


def _import(checkpoint: Path, model: Path) -> dict[str, Any]:
    document: dict[str, Any] = run_module("import_once", checkpoint, model).document
    return document


if __name__ == "__main__":
    emit(measure_rows(parse_scale()))

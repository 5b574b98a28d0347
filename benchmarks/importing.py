"""How long importing a checkpoint of 31 million parameters takes, and how much memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Row,
    Scale,
    emit,
    median,
    parse_scale,
    run_module,
    spread,
    undisturbed,
    workspace,
)

NAME = "importing"
MOST_SECONDS = 3.0
MOST_COPIES = 2.0


def rows(scale: Scale) -> Iterator[Row]:
    with workspace() as folder:
        checkpoint = folder / "weights.pth"
        run_module("import_once", checkpoint, "--make", "8" if scale.tiny else "64")
        size = checkpoint.stat().st_size
        models = [folder / f"model-{turn}" for turn in range(scale.repeats)]
        found = [undisturbed(partial(_once, checkpoint, model), scale)[0] for model in models]
        seconds = [float(document["seconds"]) for document in found]
        copies = [float(document["bytes"]) / size for document in found]
        what = f"a checkpoint of {size / 2**20:.0f} MiB"
        yield Row(NAME, what, median(seconds), "s", most=MOST_SECONDS, detail=spread(seconds))
        yield Row(
            NAME,
            f"{what}: memory ÷ size",
            median(copies),
            "×",
            most=MOST_COPIES,
            detail=spread(copies),
        )


def _once(checkpoint: Path, model: Path) -> dict[str, Any]:
    document: dict[str, Any] = run_module("import_once", checkpoint, model).document
    return document


if __name__ == "__main__":
    emit(rows(parse_scale()))

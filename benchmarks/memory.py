"""Measure the peak memory of the process that does the work, on a small and on a large slide.

That is the `wsi-unet segment` process itself. A real model runs on 0.2 Gpx of either slide, while
plan, tissue mask and overview cover the whole slide and could grow with it; without a network, both
slides are segmented as a whole. The tile size decides the memory and is chosen by trying by
default, so growth is measured at one tile size. Peaks vary by a tenth from run to run, depending on
how the peaks of the threads coincide, so medians are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.common import (
    GIB,
    Row,
    Scale,
    emit,
    format_spread,
    median,
    parse_scale,
    run_in_turns,
    run_module,
    segment,
    workspace,
)
from benchmarks.layouts import big_slide, glycogen, random_network

NAME = "memory"
BUNDLED = "nuclei-he"
MOST_BYTES = 2 * GIB
WITHIN = 0.10
REGION = "0,0,16384,12288"
"""0.2 Gpx of the large slide, (x, y, width, height), px."""


def measure_rows(scale: Scale) -> Iterator[Row]:
    small = glycogen()
    with workspace() as folder:
        large = big_slide(folder, 0.3 if scale.tiny else 3.0)
        model = _model(folder)
        name = Path(model).stem
        region = "4096,1024,1024,512" if scale.tiny else REGION
        parts = {small: ["--region", region] if scale.tiny else [], large: ["--region", region]}
        tile = ""
        for slide, options in parts.items():
            given = ("-m", model, "--mpp", "0.5", *options)
            report, done = segment(slide, folder / "m.ome.zarr", *given)
            tile = tile or str(report["parameters"]["tile"])
            yield Row(
                NAME,
                f"{name}, default settings, {_label(slide, small)}",
                done.peak_bytes / GIB,
                "GiB",
                most=MOST_BYTES / GIB,
                detail=f"{'region of 0.2 Gpx' if options else 'all of it'}, "
                f"tile {report['parameters']['tile']} chosen",
            )
        yield _growth(
            f"{name}, tile {tile}",
            {
                _label(slide, small): partial(
                    _peak_of_run,
                    slide,
                    folder,
                    "-m",
                    model,
                    "--mpp",
                    "0.5",
                    "--tile",
                    tile,
                    *options,
                )
                for slide, options in parts.items()
            },
            scale,
        )
        yield _growth(
            "no network, all of both",
            {_label(slide, small): partial(_peak_without, slide, folder, model) for slide in parts},
            scale,
        )


def _peak_of_run(slide: Path, folder: Path, *options: str) -> float:
    return segment(slide, folder / "m.ome.zarr", *options)[1].peak_bytes / GIB


def _peak_without(slide: Path, folder: Path, model: str) -> float:
    report = run_module("noop", slide, folder / "n.ome.zarr", "--model", model).document
    return float(report["peak_bytes"] / GIB)


def _model(folder: Path) -> str:
    """Return the bundled model's name or, without it, the path of a network of similar size."""
    from wsi_unet.models.model import bundled_models

    return BUNDLED if BUNDLED in bundled_models() else str(random_network(folder, 16))


def _label(slide: Path, small: Path) -> str:
    return "0.2 Gpx slide" if slide == small else "3 Gpx slide"


def _growth(what: str, alternatives: dict[str, Callable[[], float]], scale: Scale) -> Row:
    small, large = run_in_turns(alternatives, scale).values()
    return Row(
        NAME,
        f"{what}: large ÷ small",
        median(large) / median(small),
        "×",
        least=1 - WITHIN,
        most=1 + WITHIN,
        detail=f"{format_spread(large)} and {format_spread(small)} GiB",
    )


if __name__ == "__main__":
    emit(measure_rows(parse_scale()))

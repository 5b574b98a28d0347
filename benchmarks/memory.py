"""Peak memory of the process that does the work, on a small and on a large slide.

By default that is the `wsi-unet segment` process itself. A real model runs on 0.2 Gpx of either
slide (the large one is planned, masked and given its overview as a whole, all of which could
grow with the slide); without a network both slides are segmented from corner to corner. The tile
decides the memory, and by default it is chosen by trying; so growth is measured at one tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import GIB, Row, Scale, emit, parse_scale, run_module, segment, workspace
from benchmarks.layouts import big_slide, glycogen, random_network

NAME = "memory"
BUNDLED = "nuclei-he"
MOST_BYTES = 2 * GIB
WITHIN = 0.10
REGION = "0,0,16384,12288"
"""0.2 Gpx of the large slide, (x, y, width, height)."""


def rows(scale: Scale) -> Iterator[Row]:
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
        peaks = []
        for slide, options in parts.items():
            given = ("-m", model, "--mpp", "0.5", "--tile", tile, *options)
            peaks.append(segment(slide, folder / "m.ome.zarr", *given)[1].peak_bytes)
        yield _growth(f"{name}, tile {tile}: large ÷ small", peaks)
        peaks = []
        for slide in parts:
            output = folder / "n.ome.zarr"
            report = run_module("noop", slide, output, "--model", model).document
            peaks.append(report["peak_bytes"])
            yield Row(
                NAME,
                f"no network, {_label(slide, small)}",
                report["peak_bytes"] / GIB,
                "GiB",
                most=MOST_BYTES / GIB,
                detail=f"all of it, {report['blocks']['total']} blocks",
            )
        yield _growth("no network: large ÷ small", peaks)


def _model(folder: Path) -> str:
    """Return the bundled model, or a network of similar size where it isn't there yet."""
    from wsi_unet.models.checkpoint import bundled_models

    return BUNDLED if BUNDLED in bundled_models() else str(random_network(folder, 16))


def _label(slide: Path, small: Path) -> str:
    return "0.2 Gpx slide" if slide == small else "3 Gpx slide"


def _growth(what: str, peaks: list[int]) -> Row:
    detail = " and ".join(f"{peak / GIB:.3f}" for peak in reversed(peaks)) + " GiB"
    ratio = peaks[1] / peaks[0]
    return Row(NAME, what, ratio, "×", least=1 - WITHIN, most=1 + WITHIN, detail=detail)


if __name__ == "__main__":
    emit(rows(parse_scale()))

"""Run without a network: `python -m benchmarks.noop SLIDE OUTPUT --model M`.

Everything is as in a real run (plan, windows with the model's border, shards, markers, pyramid),
except that a threshold on the red channel replaces the network. Prints the run's report and the
process's peak memory as a JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import wsi_unet
from benchmarks.peers import peak_bytes
from wsi_unet.geometry import Box, Shape
from wsi_unet.models.inference.devices import keep_freed_memory
from wsi_unet.models.inference.ensemble import Ensemble, IntensityStatistics
from wsi_unet.models.inference.predictor import Prediction
from wsi_unet.segmentation.worker import probe, task

THRESHOLD = 200
"""Red values below this are foreground: stained tissue is below, bright glass above."""


class NoNetwork:
    """Replaces a `Predictor`, with the same border and the same type and shape of labels."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self.device = "cpu"
        self.precision = "float32"
        self.threads = 1
        self.slots = 1
        self.border = ensemble.border()
        self.label_images = len(ensemble.groups)
        self.label_count = ensemble.label_count
        self.classes = len(ensemble.spec.classes)

    def memory(self, tile: int, *, probabilities: bool) -> int:
        """Return what a network that isn't there takes."""
        return 0

    def predict(
        self,
        pixels: NDArray[np.uint8],
        window: Box,
        core: Box,
        shape: Shape,
        *,
        probabilities: bool = False,
        statistics: tuple[IntensityStatistics, ...] = (),
    ) -> Prediction:
        """Label the dark pixels of the core as foreground."""
        start = time.perf_counter()
        inside = pixels[core.relative_to(window).slices()]
        labels = (inside[..., 0] < THRESHOLD).view(np.uint8)[None]
        return Prediction(labels, None, time.perf_counter() - start, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("slide", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--image", default="overview")
    parser.add_argument("--tissue", default="none")
    parser.add_argument("--tile", type=int, default=1024)
    given = parser.parse_args()
    keep_freed_memory()  # as the command line does

    def no_network(_: str, load: Callable[[], Ensemble], **__: object) -> NoNetwork:
        return NoNetwork(load())

    # The two modules that need a predictor: the workers' tasks, and the probe before them.
    task.get_predictor = no_network  # type: ignore[assignment]
    probe.get_predictor = no_network  # type: ignore[assignment, attr-defined]
    report = wsi_unet.segment(
        given.slide,
        given.output,
        given.model,
        image=given.image,
        tissue=given.tissue,
        tile=given.tile,
        mpp=0.5,
        overwrite=True,
    )
    print(json.dumps(report.to_json() | {"peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()

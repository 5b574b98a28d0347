"""A factory of small outputs whose pixels are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.labelled import NamedValue

from wsi_unet.labels.layout import create_image, create_labels, create_probabilities, ensure_root
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.pyramid import Pyramid, reduce_mean, reduce_mode
from wsi_unet.labels.writer import build_tail, write_block
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.store import ByteStore

MPP = (0.5, 0.25)
FINISHED = "2026-01-02T03:04:05+00:00"


CLASSES = (
    NamedValue(0, "background", "#ffffff"),
    NamedValue(1, "nucleus", "#2a6fdb"),
    NamedValue(2, "tumour", "#e60000"),
)


@dataclass(frozen=True)
class Output:
    """What was written, to compare with what is read; `path` only if that was to a folder."""

    path: Path
    store: ByteStore
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.uint8]
    image: NDArray[np.uint8]
    pyramid: Pyramid
    image_pyramid: Pyramid


OutputFactory = Callable[..., Output]


def blobs(shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Return labels 0, 1, 2 in patches of some pixels, with single pixels between them."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 3, (-(-shape[0] // 9), -(-shape[1] // 9)), np.uint8)
    labels = coarse.repeat(9, 0).repeat(9, 1)[: shape[0], : shape[1]].copy()
    labels[random.random(shape) < 0.1] = 1
    return labels


def write_all(store: ByteStore, group: str, pyramid: Pyramid, data: NDArray[np.uint8]) -> None:
    """Write every block and the tail."""
    reduce = reduce_mode if data.ndim == 2 else reduce_mean
    for index in pyramid.grid:
        rows, columns = pyramid.grid.core(index).slices()
        write_block(store, group, pyramid, index, data[..., rows, columns], reduce)
    build_tail(store, group, pyramid, reduce, None if data.ndim == 2 else len(data))


@pytest.fixture
def make_output(tmp_path: Path) -> OutputFactory:
    """Write labels "nuclei" (1300 x 2100 px in blocks of 512), probabilities and image / 4."""

    def make(
        *,
        image: bool = True,
        mpp: tuple[float, float] | None = MPP,
        folder: str = "out.ome.zarr",
        place: ByteStore | None = None,
    ) -> Output:
        path = tmp_path / folder
        store = place or LocalStore(path)
        labels = blobs((1300, 2100))
        pyramid = Pyramid((1300, 2100), 512)
        random = np.random.default_rng(1)
        probabilities = random.integers(0, 256, (2, 1300, 2100), np.uint8)
        pixels = random.integers(0, 256, (3, 325, 525), np.uint8)
        image_pyramid = Pyramid((325, 525), 512, pyramid.levels)

        ensure_root(store, {"slide": {"name": "a slide"}})
        if image:
            create_image(store, "slide", image_pyramid, Frame.from_downsample((4, 4), mpp))
        frame = Frame.from_downsample((1, 1), mpp)
        create_labels(store, "nuclei", pyramid, frame, CLASSES, {"model": "a model"})
        create_probabilities(store, "nuclei", pyramid, frame, CLASSES[:2], {})
        write_all(store, "labels/nuclei", pyramid, labels)
        write_all(store, "probability/nuclei", pyramid, probabilities)
        if image:
            write_all(store, "", image_pyramid, pixels)
        return Output(path, store, labels, probabilities, pixels, pyramid, image_pyramid)

    return make

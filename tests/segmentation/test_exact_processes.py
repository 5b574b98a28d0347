"""Worker processes instead of threads: the same labels, and the same objects."""

from __future__ import annotations

from pathlib import Path

from support.exactness import assert_every_class_is_there, assert_same_labels, segment_labels
from support.oracle import balanced_model, whole_image_forward
from support.runs import array_objects

import wsi_unet
from wsi_unet.geometry import Box
from wsi_unet.models import UNetConfig
from wsi_unet.slides import open_slide
from wsi_unet.slides.resample import choose_resampling, open_raster

MPP = 0.7
"""The pixel size of the network, µm: 20 blocks."""


def test_worker_processes_write_the_same_labels(example_slide_path: Path, tmp_path: Path) -> None:
    config = UNetConfig(depth=3, base_width=4)
    with open_slide(example_slide_path) as slide:
        assert slide.mpp is not None
        resampling = choose_resampling(slide, (MPP / slide.mpp.y, MPP / slide.mpp.x))
        raster = open_raster(slide, resampling)
        image = raster.read(Box.from_shape(raster.shape))
    _, network = balanced_model(config, image[:512, :512], tmp_path / "model", mpp=MPP)
    truth = whole_image_forward(network, config, image)
    assert_every_class_is_there(truth, config.classes)
    stores = tmp_path / "threads", tmp_path / "processes"
    for store, workers in zip(stores, (None, 2), strict=True):
        labels = segment_labels(
            example_slide_path,
            store,
            tmp_path / "model",
            cluster=wsi_unet.ClusterOptions(workers=workers),
            image="overview",
        )
        assert_same_labels(labels, truth)
    # Not the bytes: two processes have half the cores each, and another number of threads adds up
    # in another order. Where classes tie to rounding that may decide, where they don't it can't.
    threads, processes = (array_objects(store) for store in stores)
    assert len(threads) > 30
    assert threads.keys() == processes.keys()

"""The plan counts what decoding a slide of few large tiles takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wsi_unet.errors import PlanError
from wsi_unet.geometry import Border
from wsi_unet.segmentation.parameters import LabelParameters
from wsi_unet.segmentation.planning.costs import GIB, check_affordable, count_costs
from wsi_unet.segmentation.references import ModelReference, SlideReference
from wsi_unet.slides.resample import Resampling
from wsi_unet.slides.window_memory import decoding_bytes

SIDE = 13_300


def measured(free: int) -> Any:
    """Return what costs need to know of a worker with so much free memory, bytes."""
    return SimpleNamespace(
        host="here", mpx_per_s=1.0, tile_memory=0, base_memory=0, host_memory=free,
        device_memory=None, device="cpu",
    )  # fmt: skip


def test_a_png_that_does_not_fit_into_memory_is_refused() -> None:
    labels = LabelParameters(
        slide=SlideReference(
            path="/a.png", name="a.png", reader="image", fingerprint="0" * 64,
            shape=(SIDE, SIDE), mpp=(0.5, 0.5),
        ),
        model=ModelReference(path="/model", name="model", sha256="0" * 64),
        label="model",
        resampling=Resampling(0, (1.0, 1.0), (SIDE, SIDE), (1.0, 1.0)),
        levels=2,
        block=1024,
        tile=512,
        precision="float32",
        device="cpu",
        tissue="none",
        outputs=("labels",),
    )  # fmt: skip
    border = Border(before=32, after=32, shrink=32, period=16, edge="mirror")
    tiled, whole = (
        count_costs(
            labels,
            None,
            border=border,
            classes=2,
            mask=None,
            measured=measured(4 * GIB),
            processes=1,
            threads=1,
            decoding=decoding_bytes(tile),
        )
        for tile in ((512, 512), (SIDE, SIDE))
    )
    assert whole.process_bytes - tiled.process_bytes == whole.decoding_bytes == 8 * SIDE**2
    assert not check_affordable(labels, tiled, measured(4 * GIB), per_host=1, free_disk=None)
    assert not check_affordable(labels, whole, measured(4 * GIB), per_host=1, free_disk=None)
    assert not check_affordable(labels, tiled, measured(GIB), per_host=1, free_disk=None)
    with pytest.raises(PlanError, match="convert the slide, which is decoded as a whole"):
        check_affordable(labels, whole, measured(GIB), per_host=1, free_disk=None)

"""Real slides of every kind, end to end with the bundled model; larger ones where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.oracle import whole_image_forward, write_png

import wsi_unet
from wsi_unet.geometry import Box
from wsi_unet.models import UNetConfig, load_model
from wsi_unet.models.inference import devices
from wsi_unet.segmentation.planning import plan
from wsi_unet.segmentation.worker import probe
from wsi_unet.slides import open_slide

SLIDES: dict[str, dict[str, Any]] = {
    "luna_1065626.svs": {},
    "hamamatsu_DAPI.ndpi": {},
    "OS-1-detail.ome.tif": {},
    "OS-2-ndpi.ome.tif": {},
    "camelyon_jpeg.dcm": {"mpp": 0.25},
    "glycogen_HE_15071x13500.tiff": {"mpp": 0.5, "region": (6000, 6000, 900, 900)},
}


def test_the_example_slide_end_to_end(example_slide_path: Path, tmp_path: Path) -> None:
    """What `make demo` does: nuclei in the tissue, none on the glass, areas in mm²."""
    output = tmp_path / "out"
    report = wsi_unet.segment(example_slide_path, output)
    assert report.state == "finished"
    assert report.exactness == "exact"
    nuclei = report.classes[1]
    assert nuclei.name == "nuclei"
    assert nuclei.area_mm2 is not None
    assert 0.03 < nuclei.area_mm2 < 0.2
    labels = wsi_unet.open_labels(output)
    with open_slide(example_slide_path) as slide:
        pixels = slide.read(0, Box.from_shape(slide.shape))
    glass = (pixels > 225).all(axis=-1)
    assert glass.mean() > 0.3
    assert labels.values[glass].mean() < 0.002
    assert pixels[labels.values == 1].mean() < pixels[labels.values == 0].mean() - 50


@pytest.mark.parametrize("name", SLIDES)
def test_other_real_slides_end_to_end(shared_data: Path, tmp_path: Path, name: str) -> None:
    options = SLIDES[name]
    output = tmp_path / "out"
    slide = shared_data / "slides" / name
    region = options.get("region")
    if region is None:
        with open_slide(slide) as opened:
            rows, columns = opened.shape
        # A block in the middle is enough of the large ones.
        region = None if max(rows, columns) < 3000 else (columns // 2, rows // 2, 400, 400)
    report = wsi_unet.segment(slide, output, **(options | {"region": region, "block": 1024}))
    assert report.state == "finished", report.failures
    assert wsi_unet.run_status(output, verify=True)[0].state == "finished"


def test_bfloat16_says_how_far_it_agrees(
    example_slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels may differ from float32's where two classes tie, and the run says how often."""
    # A CPU without the instructions takes twenty times as long in bfloat16.
    monkeypatch.setattr(probe, "AGREEMENT_TILE", 128)
    monkeypatch.setattr(devices, "has_matrix_units", lambda _: True)
    monkeypatch.setattr(plan, "_count_pixels", lambda _: 10**12)  # else it isn't worth it
    region = (512, 1024, 512, 512)
    reports = {
        precision: wsi_unet.segment(
            example_slide_path,
            tmp_path / precision,
            precision={"bfloat16": "auto"}.get(precision, precision),
            region=region,
            block=512,
            tile=128,
            image="none",
        )
        for precision in ("float32", "bfloat16")
    }
    assert reports["float32"].parameters["agreement"] is None
    agreement = reports["bfloat16"].parameters["agreement"]
    assert 0.98 < agreement <= 1
    exact, rounded = (
        wsi_unet.open_labels(tmp_path / name)[1024:1536, 512:1024].values for name in reports
    )
    assert (exact == rounded).mean() > 0.98
    assert wsi_unet.open_labels(tmp_path / "bfloat16").attrs["provenance"]["agreement"] == agreement


def test_the_bundled_model_is_exact(example_slide_path: Path, tmp_path: Path) -> None:
    model = load_model("nuclei-he")
    spec = model.spec
    assert isinstance(spec.architecture, UNetConfig)
    with open_slide(example_slide_path) as slide:
        image = slide.read(0, Box(600, 300, 2100, 1700))
    part = write_png(tmp_path / "part.png", image)
    truth = whole_image_forward(
        model.build(),
        spec.architecture,
        image,
        mean=spec.normalisation.mean,
        std=spec.normalisation.std,
    )
    output = tmp_path / "out"
    wsi_unet.segment(
        part, output, mpp=0.5, tissue="none", image="none", block=512, precision="float32"
    )
    assert truth.decided.mean() > 0.999
    assert not ((wsi_unet.open_labels(output).values != truth.labels) & truth.decided).any()

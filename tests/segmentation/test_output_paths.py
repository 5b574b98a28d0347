"""Where an output may be written, and which existing files are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import runs
from support.oracle import balanced_model, textured, write_png

import wsi_unet
from wsi_unet.errors import OptionError
from wsi_unet.segmentation.status import run_status

OPTIONS = runs.OPTIONS | {"tile": 256}


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return textured(700, 600)


@pytest.fixture
def folder(tmp_path: Path, image: NDArray[np.uint8]) -> Path:
    write_png(tmp_path / "slide.png", image)
    balanced_model(runs.CONFIG, image, tmp_path / "model")
    return tmp_path


def everything(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", [".", "labels", "..", "link"])
def test_a_slide_is_never_its_own_output(folder: Path, place: str, overwrite: bool) -> None:
    """A result with a full image is a slide too, and its default output would be itself."""
    first = folder / "sub" / "first.ome.zarr"
    wsi_unet.segment(folder / "slide.png", first, folder / "model", image="full", **OPTIONS)
    (folder / "link").symlink_to(first)
    output = folder / "link" if place == "link" else first / place
    before = everything(first)
    with pytest.raises(OptionError, match="is the slide itself, or one lies inside the other"):
        wsi_unet.segment(first, output, folder / "model", overwrite=overwrite, **OPTIONS)
    assert everything(first) == before


def test_a_tilde_means_home(
    folder: Path, monkeypatch: pytest.MonkeyPatch, image: NDArray[np.uint8]
) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    report = wsi_unet.segment(folder / "slide.png", "~/out", folder / "model", **OPTIONS)
    assert report.state == "finished"
    assert wsi_unet.open_labels(folder / "home" / "out").shape == image.shape[:2]


@pytest.mark.parametrize(
    ("document", "content"),
    [
        ("labels/random/0/zarr.json", None),
        ("labels/random/zarr.json", b"{"),
        ("labels/random/zarr.json", b'{"attributes": {"ome": {}, "wsi_unet": {}}}'),
        ("labels/random/1/zarr.json", b'{"shape": [1, 1]}'),
    ],
)
def test_lost_metadata_is_noticed_and_mended(
    folder: Path, document: str, content: bytes | None
) -> None:
    output = folder / "out"
    wsi_unet.segment(folder / "slide.png", output, folder / "model", **OPTIONS)
    labels = wsi_unet.open_labels(output).values
    if content is None:
        (output / document).unlink()
    else:
        (output / document).write_bytes(content)
    assert run_status(output)[0].state == "unfinished"
    report = wsi_unet.segment(folder / "slide.png", output, folder / "model", **OPTIONS)
    assert report.state == "finished"
    assert report.blocks.resumed == report.blocks.total
    assert run_status(output)[0].state == "finished"
    np.testing.assert_array_equal(wsi_unet.open_labels(output).values, labels)


def test_another_mask_in_its_place_is_not_used(folder: Path) -> None:
    """The mask decides pixels, so it belongs to the run's signature."""
    output = folder / "out"
    options = OPTIONS | {"tissue": "auto"}
    first = wsi_unet.segment(folder / "slide.png", output, folder / "model", **options)
    assert first.classes[1].pixels > 0
    mask = output / ".wsi_unet/random/mask.png"
    kept = mask.read_bytes()
    from PIL import Image

    with Image.open(mask) as image:
        size = image.size
    Image.new("1", size).save(mask)
    for marker in (output / ".wsi_unet/random/blocks").glob("*.json"):
        marker.unlink()
    second = wsi_unet.segment(folder / "slide.png", output, folder / "model", **options)
    assert second.classes == first.classes
    assert mask.read_bytes() == kept


def test_a_foreign_marker_is_not_believed(folder: Path) -> None:
    output = folder / "out"
    first = wsi_unet.segment(folder / "slide.png", output, folder / "model", **OPTIONS)
    marker = output / ".wsi_unet/random/blocks/0.0.json"
    content = json.loads(marker.read_text())
    marker.write_text(json.dumps(content | {"signature": "0" * 64}))
    second = wsi_unet.segment(folder / "slide.png", output, folder / "model", **OPTIONS)
    assert second.blocks.resumed == first.blocks.total - 1
    assert json.loads(marker.read_text())["signature"] == content["signature"]

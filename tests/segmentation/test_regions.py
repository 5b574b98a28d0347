"""Regions of a slide: what is computed, counted and stored is true to the pixel."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.oracle import balanced_model, textured, write_png
from support.runs import CONFIG, OPTIONS, Study, array_objects, marker_times

import wsi_unet
from wsi_unet.errors import BlockError, OptionError
from wsi_unet.labels.progress import Progress
from wsi_unet.segmentation.status import run_status
from wsi_unet.segmentation.worker.task import Run, Task, run_task
from wsi_unet.storage.opening import open_store

Region = tuple[int, int, int, int]

INSIDE = (300, 200, 400, 700)
"""Parts of four blocks, aligned to nothing."""
REGIONS: dict[str, Sequence[Region]] = {
    "inside a block": [(3, 7, 1, 1)],
    "over blocks": [INSIDE],
    "whole blocks": [(512, 512, 512, 512)],
    "to the slide's end": [(1100, 1500, 10_000, 10_000)],
    "overlapping": [(100, 100, 500, 200), (400, 250, 300, 300), (450, 260, 10, 10)],
    "side by side": [(0, 0, 512, 300), (0, 300, 512, 212)],
    "apart": [(0, 0, 5, 5), (1200, 1600, 100, 100)],
}


def pixels_of(regions: Sequence[Region], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    inside = np.zeros(shape, bool)
    for x, y, width, height in regions:
        inside[y : y + height, x : x + width] = True
    return inside


@pytest.mark.parametrize("regions", REGIONS.values(), ids=REGIONS)
def test_labels_and_counts_are_those_of_the_region_alone(
    study: Study, tmp_path: Path, regions: Sequence[Region]
) -> None:
    for region in regions:
        report = study.run(tmp_path / "out", region=region, image="none")
    whole = wsi_unet.open_labels(study.whole).values
    inside = pixels_of(regions, whole.shape)
    labels = wsi_unet.open_labels(tmp_path / "out")
    assert np.array_equal(labels.values, np.where(inside, whole, 0))
    assert np.array_equal(labels.predicted.values, inside)
    assert report.state == "finished"
    for area in report.classes:
        share = float((labels == area.value).where(labels.predicted).mean())
        assert area.fraction == pytest.approx(share)
        assert area.pixels == (whole[inside] == area.value).sum()
    assert labels.attrs["pixels"] == {area.value: area.pixels for area in report.classes}


def test_a_region_of_tissue_with_probabilities(study: Study, tmp_path: Path) -> None:
    """Tissue and regions are one area; whatever is stored is 0 outside of it."""
    cells = np.random.default_rng(0).random((17, 13)) < 0.5
    mask = tmp_path / "mask.png"
    Image.fromarray(cells).save(mask)
    options: dict[str, Any] = {
        "tissue": str(mask), "outputs": ("labels", "probabilities"), "image": "none",
    }  # fmt: skip
    study.run(tmp_path / "whole", **options)
    report = study.run(tmp_path / "part", region=INSIDE, **options)
    whole, part = tmp_path / "whole", tmp_path / "part"
    inside = pixels_of([INSIDE], (1700, 1300)) & np.kron(cells, np.ones((100, 100), bool))
    labels = wsi_unet.open_labels(part)
    assert np.array_equal(labels.predicted.values, inside)
    for opened in (wsi_unet.open_labels, wsi_unet.open_probabilities):
        assert np.array_equal(opened(part).values, opened(whole).values * inside)
    assert sum(area.pixels for area in report.classes) == inside.sum()


@pytest.mark.parametrize("mpp", [0.25, 0.4])
def test_pixels_of_another_size_belong_to_a_region_by_their_centres(
    tmp_path: Path, mpp: float
) -> None:
    image = textured(1111, 903)
    slide = write_png(tmp_path / "slide.png", image)
    balanced_model(CONFIG, image, tmp_path / "model", mpp=0.5)

    def labels(name: str, **options: Any) -> Any:
        output = tmp_path / name
        options |= {"mpp": mpp, "image": "none"}
        wsi_unet.segment(slide, output, tmp_path / "model", **(OPTIONS | options))
        return wsi_unet.open_labels(output)

    whole = labels("whole")
    x, y, width, height = region = (101, 37, 333, 400)
    part = labels("part", region=region)
    (step_y, step_x), centre = (side / mpp for side in whole.attrs["pixel_size"]), 0.5
    assert (step_y, step_x) == (pytest.approx(0.5 / mpp, rel=1e-3),) * 2
    rows = (np.arange(whole.shape[0]) + centre) * step_y
    columns = (np.arange(whole.shape[1]) + centre) * step_x
    inside = ((rows >= y) & (rows < y + height))[:, None] & (columns >= x) & (columns < x + width)
    assert np.array_equal(part.predicted.values, inside)
    assert np.array_equal(part.values, np.where(inside, whole.values, 0))
    # All of the slide is all of the grid, though the last pixels reach beyond the slide.
    everything = labels("all", region=(0, 0, 903, 1111))
    assert everything.predicted.values.all()
    assert np.array_equal(everything.values, whole.values)


def test_a_region_between_the_centres_of_pixels_is_refused(tmp_path: Path) -> None:
    image = textured(600, 600)
    slide = write_png(tmp_path / "slide.png", image)
    balanced_model(CONFIG, image, tmp_path / "model", mpp=2.0)
    with pytest.raises(OptionError, match="centre of no pixel of the labels, which are 4 x 4 pix"):
        wsi_unet.segment(
            slide, tmp_path / "out", tmp_path / "model", mpp=0.5, region=(3, 0, 2, 4), **OPTIONS
        )
    assert not (tmp_path / "out").exists()


def test_tiles_that_a_region_does_not_touch_are_not_planned(study: Study, tmp_path: Path) -> None:
    options: dict[str, Any] = OPTIONS | {"region": (500, 130, 20, 20)}  # of tiles of 128 px
    plan = wsi_unet.plan(study.slide, tmp_path / "out", study.folder / "model", **options)
    assert plan.to_json()["blocks"] == 2
    assert (plan.costs.tiles, plan.costs.predicted_pixels) == (2, 2 * 128**2)


def test_only_blocks_of_which_the_regions_cover_more_are_computed_again(
    study: Study, tmp_path: Path
) -> None:
    output, at_once = tmp_path / "out", tmp_path / "other order"
    study.run(output, region=(0, 0, 600, 512))
    before = marker_times(output)
    assert sorted(before) == ["0.0.json", "0.1.json"]
    study.run(output, region=(550, 0, 20, 20))  # inside what is there
    study.run(output, region=(512, 0, 88, 512))  # all of one block's part
    assert marker_times(output) == before
    report = study.run(output, region=(500, 100, 300, 300))
    assert report.blocks.resumed == 1
    after = marker_times(output)
    assert after["0.0.json"] == before["0.0.json"]
    assert after["0.1.json"] != before["0.1.json"]
    study.run(at_once, region=(500, 100, 300, 300))
    study.run(at_once, region=(0, 0, 600, 512))
    assert array_objects(output) == array_objects(at_once)
    assert study.run(output).state == "finished"
    assert array_objects(output) == array_objects(study.whole)
    assert wsi_unet.open_labels(output).predicted.values.all()


def test_a_store_of_an_earlier_version_says_what_it_holds(study: Study, tmp_path: Path) -> None:
    """Earlier versions computed the blocks of a region as a whole, and their markers say no less.

    A run now gives them the region's pixels alone.
    """
    output, now = tmp_path / "out", tmp_path / "now"
    study.run(output, region=(0, 0, 1024, 512), image="none")
    record = output / ".wsi_unet" / "random" / "run.json"
    document = json.loads(record.read_text())
    document["parameters"]["regions"] = [[0, 0, 300, 512], [20, 512, 30, 522]]
    record.write_text(json.dumps(document))
    for marker in (output / ".wsi_unet" / "random" / "blocks").glob("*.json"):
        written = json.loads(marker.read_text())
        assert written.pop("boxes") is None
        marker.write_text(json.dumps(written))

    labels = wsi_unet.open_labels(output)
    assert labels.predicted.values.sum() == 512 * 1024
    assert labels.predicted.values[:512, :1024].all()
    shares = {value: count / (512 * 1024) for value, count in labels.attrs["pixels"].items()}
    for value, share in shares.items():
        assert float((labels == value).where(labels.predicted).mean()) == pytest.approx(share)
    assert run_status(output)[0].blocks.left == 2

    for folder in (output, now):
        for region in ((0, 0, 512, 300), (512, 20, 10, 10)):
            study.run(folder, region=region, image="none")
    assert array_objects(output) == array_objects(now)
    assert wsi_unet.open_labels(output).predicted.values.sum() == 512 * 300 + 100


def test_a_task_of_smaller_regions_does_not_undo_what_is_there(
    study: Study, tmp_path: Path
) -> None:
    """It may outlive its run on a cluster, while the next run has computed more of the block."""
    output = tmp_path / "out"
    study.run(output, region=(0, 0, 100, 100), image="none")
    progress = Progress(open_store(output), "random")
    record = progress.read_run()
    assert record is not None
    straggler = Task(Run(str(output), "random", record.signature, "earlier"), (0, 0))
    run_task(straggler)  # opens the run with the regions that it has now
    study.run(output, region=(0, 0, 200, 100), image="none")
    shutil.copytree(output, tmp_path / "before")
    with pytest.raises(BlockError, match="has grown its regions"):
        run_task(straggler)
    assert array_objects(output) == array_objects(tmp_path / "before")


def test_what_was_done_before_the_regions_grew_still_counts(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that can't be computed again keeps its pixels, its counts and its predicted area."""
    from wsi_unet.segmentation.worker import label_block

    output = tmp_path / "out"
    study.run(output, region=(0, 0, 100, 100), image="none")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the slide is gone")

    with monkeypatch.context() as patch:
        patch.setattr(label_block, "predict_box", fail)
        report = study.run(output, region=(0, 0, 700, 100), image="none")
    assert (report.state, report.blocks.failed, report.blocks.done) == ("incomplete", 2, 0)
    labels = wsi_unet.open_labels(output)
    assert labels.attrs["finished"] is None
    assert np.array_equal(labels.predicted.values, pixels_of([(0, 0, 100, 100)], labels.shape))
    for area in report.classes:
        share = float((labels == area.value).where(labels.predicted).mean())
        assert area.fraction == pytest.approx(share)
    assert study.run(output, region=(0, 0, 700, 100), image="none").state == "finished"
    assert wsi_unet.open_labels(output).predicted.values.sum() == 700 * 100

"""Failures never become zeros: they are recorded, reported, and repaired by the next run."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray
from support.oracle import balanced_model, whole_image_forward
from support.runs import OPTIONS, Study

import wsi_unet
from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.models import UNetConfig
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.runs import cohort, meter
from wsi_unet.segmentation.status import run_status
from wsi_unet.slides.slide import Slide


@pytest.mark.parametrize("image_mode", ["none", "overview"])
def test_a_tile_that_cannot_be_read_spoils_only_its_blocks(
    small: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image_mode: str,
) -> None:
    output = tmp_path / "out"
    bad = Box(700, 700, 701, 701)
    read = Slide.read

    def broken(self: Slide, level: int, box: Box) -> NDArray[np.uint8]:
        if box.intersection(bad).area:
            raise SlideError("tile 7 of level 0 can't be decoded")
        return read(self, level, box)

    with monkeypatch.context() as patch:
        patch.setattr(Slide, "read", broken)
        report = small.run(output, image=image_mode)
        assert report.state == "incomplete"
        assert report.blocks.failed == 1
        assert report.blocks.done == 8
        labels = [failure for failure in report.failures if "image" not in failure.error]
        assert labels[0].block == (1, 1)
        assert "slide.png, block 1.1: tile 7 of level 0" in labels[0].error
        assert len(report.failures) == (1 if image_mode == "none" else 2)
    status = run_status(output)[0]
    assert status.state == "incomplete"
    assert status.failures[0].block == (1, 1)
    assert wsi_unet.open_labels(output).attrs["finished"] is None

    mended = small.run(output, image=image_mode)
    assert mended.state == "finished"
    assert mended.blocks.resumed == 8
    assert run_status(output)[0].failures == ()


def test_a_block_that_fails_once_is_tried_again(
    small: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Slide.read
    failed: list[Box] = []

    def flaky(self: Slide, level: int, box: Box) -> NDArray[np.uint8]:
        if not failed:
            failed.append(box)
            raise OSError(5, "Input/output error")
        return read(self, level, box)

    monkeypatch.setattr(Slide, "read", flaky)
    report = small.run(tmp_path / "out")
    assert report.state == "finished"
    assert failed


def test_a_hung_read_is_a_failure_not_a_hang(
    small: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, given_up = Slide.read, Event()

    def hung(self: Slide, level: int, box: Box) -> NDArray[np.uint8]:
        if box.intersection(Box(700, 700, 701, 701)).area:
            given_up.wait(8)
        return read(self, level, box)

    monkeypatch.setattr(Slide, "read", hung)
    impatient = Limits(shortest_deadline=2.0, deadline_factor=0.0)
    monkeypatch.setattr(cohort, "LIMITS", impatient)

    def end_once_given_up(progress: wsi_unet.RunProgress) -> None:
        if progress.blocks_failed:
            given_up.set()

    report = small.run(tmp_path / "out", image="none", on_progress=end_once_given_up)
    assert report.state == "incomplete"
    assert "no answer within 2 s" in report.failures[0].error


def test_interrupted_runs_say_so_and_resume(
    small: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    monkeypatch.setattr(meter, "PROGRESS_SECONDS", 0.0)

    def interrupt(progress: wsi_unet.RunProgress) -> None:
        if progress.blocks_done >= 2:
            raise KeyboardInterrupt

    report = small.run(output, on_progress=interrupt)
    assert report.state == "interrupted"
    again = small.run(output)
    assert again.state == "finished"
    assert again.blocks.resumed >= 2


def test_a_second_model_adds_a_second_label_group(
    small: Study, tmp_path: Path, small_image: NDArray[np.uint8]
) -> None:
    output = tmp_path / "out"
    small.run(output)
    config = UNetConfig(depth=1, base_width=4, classes=3)
    _, network = balanced_model(config, small_image, tmp_path / "model", name="second")
    report = wsi_unet.segment(small.slide, output, tmp_path / "model", **OPTIONS)
    assert report.state == "finished"
    truth = whole_image_forward(network, config, small_image)
    second = wsi_unet.open_labels(output, "second").values
    assert not ((second != truth.labels) & truth.decided).any()
    assert wsi_unet.open_labels(output, "random").attrs["finished"]
    assert [status.label for status in run_status(output)] == ["random", "second", "image"]


def test_labels_are_zero_outside_the_tissue_and_the_forward_inside(
    small: Study, tmp_path: Path, small_image: NDArray[np.uint8]
) -> None:
    """Per pixel, also where a tile or a block is only partly tissue."""
    from PIL import Image

    rows, columns = small_image.shape[:2]
    mask = np.zeros((53, 53), bool)
    mask[5:9, 30:50] = mask[20, 3] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    output = tmp_path / "out"
    report = small.run(output, tissue=str(tmp_path / "mask.png"))
    whole = tmp_path / "whole"
    small.run(whole)
    y = (2 * np.arange(rows) + 1) * 53 // (2 * rows)
    x = (2 * np.arange(columns) + 1) * 53 // (2 * columns)
    inside = mask[np.ix_(y, x)]
    expected = np.where(inside, wsi_unet.open_labels(whole).values, 0)
    np.testing.assert_array_equal(wsi_unet.open_labels(output).values, expected)
    assert report.blocks.empty > 0
    assert sum(found.pixels for found in report.classes) == inside.sum()
    assert sum(found.fraction for found in report.classes) == pytest.approx(1)
    assert report.classes[1].pixels == np.count_nonzero(expected == 1)

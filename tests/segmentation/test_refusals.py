"""Refusals before anything is written: one line, with nothing lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.oracle import balanced_model, write_png
from support.runs import CONFIG, OPTIONS, Study

import wsi_unet
from wsi_unet.dask_cluster import connection
from wsi_unet.errors import OptionError, OutputError, PlanError, SlideError
from wsi_unet.models import UNetConfig
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.segmentation.references import ModelReference
from wsi_unet.segmentation.worker.task import load_ensemble


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 100}, r"tile 100 .*multiple of the network's period 8.*try `tile=104`"),
        ({"tile": 1024}, r"at most the block 512"),
        ({"block": 700}, r"block 700 is not 512 times a power of two"),
        (
            {"region": (5000, 0, 10, 10)},
            r"`region=.*` lies outside the slide, which is 1100 x 1100",
        ),
        ({"region": (0, 0, 0, 10)}, r"not \(x, y, width, height\)"),
        ({"outputs": ("probabilities",)}, r"outputs 'probabilities'"),
        ({"image": "half"}, r"image 'half' is none of"),
        ({"precision": "int8"}, r"precision 'int8'"),
        ({"device": "tpu"}, r"device 'tpu'"),
        ({"device": "cuda:77"}, r"isn't here"),
    ],
)
def test_unusable_options_are_refused_in_one_line(
    tmp_path: Path, small_image: NDArray[np.uint8], options: dict[str, Any], message: str
) -> None:
    write_png(tmp_path / "slide.png", small_image)
    balanced_model(UNetConfig(depth=3, base_width=4), small_image, tmp_path / "model")
    output = tmp_path / "out"
    with pytest.raises(OptionError, match=message) as caught:
        Study(tmp_path, blocks=9).run(output, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.option in {None, *options}
    assert not output.exists()


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"workers": 0}, r"at least one"),
        ({"workers": 1, "scheduler": "tcp://127.0.0.1:1"}, r"not both"),
        ({"scheduler": "tcp://127.0.0.1:1"}, r"no Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_unusable_clusters_are_refused_in_one_line(
    small: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cluster: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)  # a closed port is tried so long
    with pytest.raises(OptionError, match=message) as caught:
        small.run(tmp_path / "out", cluster=wsi_unet.ClusterOptions(**cluster))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("mpp", "given", "message"),
    [
        (0.5, None, r"doesn't say how large its pixels are, and random needs 0.5 µm.*`mpp`"),
        (0.5, 120.0, r"120 µm.*`mpp`"),
        (0.5, 0.001, r"0.001 µm.*`mpp`"),
    ],
)
def test_pixel_sizes_are_never_guessed(
    tmp_path: Path, small_image: NDArray[np.uint8], mpp: float, given: float | None, message: str
) -> None:
    write_png(tmp_path / "slide.png", small_image)
    balanced_model(CONFIG, small_image, tmp_path / "model", mpp=mpp)
    with pytest.raises(SlideError, match=message):
        Study(tmp_path, blocks=9).run(tmp_path / "out", mpp=given)
    assert not (tmp_path / "out").exists()


def test_a_given_pixel_size_is_used(tmp_path: Path, small_image: NDArray[np.uint8]) -> None:
    write_png(tmp_path / "slide.png", small_image)
    balanced_model(CONFIG, small_image, tmp_path / "model", mpp=0.5)
    report = Study(tmp_path, blocks=9).run(tmp_path / "out", mpp=0.25)
    labels = wsi_unet.open_labels(tmp_path / "out")
    assert labels.shape == (550, 550)
    assert float(labels.y[1] - labels.y[0]) == pytest.approx(0.5)
    assert float(labels.y[0]) == pytest.approx(0.125)
    area = sum(found.area_mm2 or 0 for found in report.classes)
    assert area == pytest.approx((1100 * 0.25e-3) ** 2)


def test_somebody_elses_folder_is_left_alone(small: Study, tmp_path: Path) -> None:
    import zarr

    foreign = tmp_path / "foreign.zarr"
    array = zarr.create_array(store=foreign, shape=(8, 8), chunks=(8, 8), dtype="u1")
    array[:] = 7
    before = sorted(path.name for path in foreign.rglob("*"))
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="did not write"):
            small.run(foreign, overwrite=overwrite)
    assert sorted(path.name for path in foreign.rglob("*")) == before
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match="isn't empty"):
        small.run(filled, overwrite=True)
    assert (filled / "thesis.txt").read_text() == "all of it"


def test_too_little_memory_is_refused_with_numbers(
    small: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=2**20))
    with pytest.raises(PlanError, match=r"memory: .* MiB .*`tile` \(now 128\)"):
        small.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_little_disk_is_refused_with_numbers(
    small: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    with pytest.raises(PlanError, match=r"disk: .* kept free, .*choose another `output`"):
        small.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_needs_space_for_what_is_left_only(
    small: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored already took its space; nearly full disks must not stop the last blocks."""
    from wsi_unet.segmentation.planning import costs

    output, everything = tmp_path / "out", tmp_path / "whole"
    needed = wsi_unet.plan(
        small.slide, everything, small.folder / "model", image="none", **OPTIONS
    ).costs.expected_bytes
    small.run(output, image="none", region=(0, 0, 1100, 1024))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(costs, "DISK_MARGIN", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed // 2))
    with pytest.raises(PlanError, match="disk: "):
        small.run(everything, image="none")
    report = small.run(output, image="none")
    assert (report.state, report.blocks.resumed) == ("finished", 6)


def test_a_plan_writes_nothing(small: Study, tmp_path: Path) -> None:
    made = wsi_unet.plan(small.slide, tmp_path / "out", small.folder / "model", **OPTIONS)
    assert not (tmp_path / "out").exists()
    facts = made.to_json()
    assert facts["blocks"] == facts["tissue_blocks"] == 9
    assert facts["halo"] > 1
    assert facts["seconds"] > 0
    assert facts["exactness"] == "exact"
    assert facts["output_bytes"] >= facts["expected_bytes"] > 0
    report = small.run(tmp_path / "out")
    assert report.parameters["tile"] == facts["tile"]
    stored = sum(
        path.stat().st_size for path in (tmp_path / "out").rglob("c/*/*") if path.is_file()
    )
    assert stored <= facts["output_bytes"]


def test_a_model_that_changes_after_planning_is_refused(
    small: Study, tmp_path: Path, small_image: NDArray[np.uint8]
) -> None:
    """As one does that is being trained: a run's blocks are all of one model."""
    live = tmp_path / "live"
    shutil.copytree(small.folder / "model", live)
    planned = ModelReference.from_ensemble(Ensemble((wsi_unet.load_model(live),), "none"))
    shutil.rmtree(live)
    balanced_model(CONFIG, small_image[::-1], live)
    with pytest.raises(OutputError, match=r"has changed since .* segment with a copy of it"):
        load_ensemble(planned, "none")

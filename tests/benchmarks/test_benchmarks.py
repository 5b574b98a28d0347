"""The benchmark programs run and measure what their tables say. Nothing is timed here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import warm
from support.oracle import whole_image_forward

import wsi_unet
from benchmarks.common import (
    ROOT,
    Row,
    Scale,
    format_spread,
    median,
    run_in_turns,
    select_least_disturbed,
)
from benchmarks.gpu_network import time_network
from benchmarks.networks import make_balanced_network, write_network
from benchmarks.noop import THRESHOLD
from benchmarks.reference import run_whole_image
from wsi_unet.geometry import Box
from wsi_unet.models import UNetConfig


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return warm.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("value", "least", "most", "verdict"),
    [
        (1.0, None, None, ""),
        (0.92, 0.92, None, "met"),
        (0.91, 0.92, None, "missed"),
        (1.49, None, 1.5, "met"),
        (1.5, None, 1.5, "missed"),
        (1.2, 0.9, 1.1, "missed"),
        (0.8, 0.9, 1.1, "missed"),
        (1.0, 0.9, 1.1, "met"),
    ],
)
def test_a_bar_is_met_or_missed(
    value: float, least: float | None, most: float | None, verdict: str
) -> None:
    assert Row("b", "w", value, "s", least, most).verdict == verdict


def test_alternatives_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    values = run_in_turns({"a": lambda: run("a"), "b": lambda: run("b")}, Scale(repeats=3))
    assert order == ["a", "b"] * 3
    assert values["a"]
    assert set(values["a"]) <= {1, 3, 5}
    assert set(values["b"]) <= {2, 4, 6}
    assert "3/3 b: 6" in capsys.readouterr().err


def test_disturbed_samples_count_only_where_there_is_nothing_better() -> None:
    assert select_least_disturbed([(1.0, 0.0), (2.0, 1.5), (3.0, 0.1)]) == [1.0, 3.0]
    assert select_least_disturbed([(1.0, 1.2), (2.0, 0.9), (3.0, 1.0)]) == [2.0]
    assert select_least_disturbed([(float(n), 1.0 + n) for n in range(6)]) == [0.0, 1.0]


def test_the_median_is_shown_with_its_extremes() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert format_spread([3.0, 1.0, 2.0]) == "2 (1 to 3)"
    assert format_spread([0.12345]) == "0.123"


def test_the_table_has_every_row(tmp_path: Path) -> None:
    done = _run("benchmarks", "startup", "--tiny", "--json", tmp_path / "rows.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["what"] for row in rows if row["most"]] == [
        "wsi-unet --help",
        "wsi-unet info",
        "import wsi_unet",
    ]
    assert all(row["what"] in done.stdout for row in rows)


def test_trainings_are_measured_against_their_network() -> None:
    done = _run("benchmarks.training", "--tiny")
    assert done.returncode == 0, done.stderr
    (row,) = (Row(**json.loads(line)) for line in done.stdout.splitlines())
    assert (row.least, row.value > 0) == (0.85, True)
    assert "of the time waiting for samples" in row.detail


def test_regions_of_a_result_with_many_objects_are_measured() -> None:
    done = _run("benchmarks.measure", "--tiny")
    assert done.returncode == 0, done.stderr
    whole, areas = (Row(**json.loads(line)) for line in done.stdout.splitlines())
    assert (whole.most, areas.most, areas.value > 0) == (5.0, None, True)
    assert "objects in regions" in whole.detail


def test_exports_of_a_growing_slide_are_measured() -> None:
    done = _run("benchmarks.exports_images", "--tiny")
    assert done.returncode == 0, done.stderr
    *speeds, _, _, _ = (Row(**json.loads(line)) for line in done.stdout.splitlines())
    assert [row.what.split(",")[0] for row in speeds] == [
        "ome-tiff labels",
        "ome-tiff overlay",
        "ome-zarr-0.4",
    ]
    assert all(row.value > 0 for row in speeds)


def test_exports_of_many_objects_are_measured() -> None:
    done = _run("benchmarks.exports", "--tiny")
    assert done.returncode == 0, done.stderr
    *rows, flat = (Row(**json.loads(line)) for line in done.stdout.splitlines())
    speeds = [row for row in rows if row.unit == "objects/s"]
    assert [row.least for row in speeds if row.what.startswith("qupath")] == [30_000.0]
    assert all(row.value > 0 for row in speeds)
    assert (flat.most, flat.value) == (1.1, 1.0)


def test_an_unknown_benchmark_is_refused() -> None:
    done = _run("benchmarks", "speed")
    assert done.returncode == 2
    assert "no benchmark 'speed'; there are startup" in done.stderr


def test_a_run_without_a_network_stores_the_threshold(
    example_slide_path: Path, tmp_path: Path
) -> None:
    model = write_network(tmp_path / "model.safetensors", UNetConfig(depth=2, base_width=2))
    output = tmp_path / "out.ome.zarr"
    done = _run("benchmarks.noop", example_slide_path, output, "--model", model.path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["state"] == "finished"
    assert report["peak_bytes"] > 2**27
    with wsi_unet.open_slide(example_slide_path) as slide:
        red = slide.read(0, Box.from_shape(slide.shape))[..., 0]
    np.testing.assert_array_equal(wsi_unet.open_labels(output).to_numpy(), red < THRESHOLD)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("upsampling", ["transpose", "bilinear"])
def test_the_reference_agrees_with_the_tests_own(
    padding: str, upsampling: str, tmp_path: Path
) -> None:
    config = UNetConfig.model_validate(
        {"padding": padding, "upsampling": upsampling, "depth": 2, "base_width": 8}
    )
    model = write_network(tmp_path / "model.safetensors", config)
    image = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)
    truth = run_whole_image(model, image, "cpu")
    normalisation = model.spec.normalisation
    oracle = whole_image_forward(
        model.build(), config, image, mean=normalisation.mean, std=normalisation.std
    )
    both = truth.decided & oracle.decided
    assert both.mean() > 0.9
    np.testing.assert_array_equal(truth.labels[both], oracle.labels[both])


def test_random_networks_have_two_live_classes_and_the_same_weights_for_both_paddings() -> None:
    valid = make_balanced_network(UNetConfig(depth=2, base_width=8), seed=0).state_dict()
    same = make_balanced_network(
        UNetConfig(padding="same", depth=2, base_width=8), seed=0
    ).state_dict()
    assert all(torch.equal(valid[name], same[name]) for name in valid)


def test_the_network_is_timed_at_every_tile_that_fits_its_period(tmp_path: Path) -> None:
    model = write_network(tmp_path / "model.safetensors", UNetConfig(depth=2, base_width=2))
    speeds = time_network(model, "cpu", "float32", (16, 18, 32))
    assert speeds.keys() == {16, 32}
    assert min(map(min, speeds.values())) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_its_benchmark_says_so() -> None:
    done = _run("benchmarks.gpu")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "no CUDA device" in done.stderr

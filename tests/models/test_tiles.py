"""Choosing tiles and devices, and the memory of tiles."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from typing_extensions import override

from wsi_unet.errors import OptionError
from wsi_unet.geometry import Box
from wsi_unet.models.architectures.costs import largest_map, tile_memory, window_side
from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.models.inference import devices, tiles
from wsi_unet.models.inference.agreement import measure_agreement
from wsi_unet.models.inference.device_names import DeviceName, parse_device_name
from wsi_unet.models.inference.predictor import Predictor
from wsi_unet.models.inference.tiles import (
    SearchLimit,
    TileChoice,
    choose_tile,
    count_search_flops,
    find_fitting_tiles,
    measure_speed,
)
from wsi_unet.models.model import Model

MakeModel = Callable[..., Model]


@pytest.fixture
def predictor(make_model: MakeModel) -> Predictor:
    return Predictor(make_model(), device="cpu", precision="float32", threads=1)


class FakeTrial(tiles._Trial):
    """A trial in which a tile takes the seconds that the test sets."""

    times: dict[int, float]

    @override
    def time(self, side: int) -> float:
        self.tried = [*getattr(self, "tried", ()), side]
        return self.times[side]


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ({256: 2.5, 512: 2.4, 1024: 2.3}, 512),
        ({256: 2.4, 512: 2.4, 1024: 2.6}, 512),  # within the noise of the preferred one
        ({256: 2.4, 512: 2.4, 1024: 2.9}, 1024),
        ({256: 2.9, 512: 2.0, 1024: 2.4}, 256),
    ],
)
def test_choice_is_stable_under_noise(
    predictor: Predictor, speeds: dict[int, float], expected: int
) -> None:
    trial = FakeTrial(predictor, False)
    trial.times = {side: side * side / 1e6 / speed for side, speed in speeds.items()}
    choice = tiles._choose_fastest(trial, sorted(speeds), 512, SearchLimit())
    assert choice.tile == expected
    assert choice.source == "searched"
    assert choice.speeds == pytest.approx(speeds)


def test_preferred_tile_is_tried_first_when_time_is_short(predictor: Predictor) -> None:
    trial = FakeTrial(predictor, False)
    trial.times = {256: 1.0, 512: 4.0, 1024: 16.0}
    choice = tiles._choose_fastest(trial, [256, 512, 1024], 512, SearchLimit(seconds=12))
    assert choice.tile == 512
    assert set(choice.speeds) == {256, 512}


@pytest.mark.parametrize("tiles_of_the_run", [1, 23, 60, 200, 1000, 10**6])
@pytest.mark.parametrize("slow", [0.8, 1.0, 1.25])
def test_a_search_takes_a_small_share_of_the_run(
    predictor: Predictor, tiles_of_the_run: int, slow: float
) -> None:
    """Also where the tiles that are tried take up to 2.4 times as long per operation."""
    flops = predictor.ensemble.flops
    sides = [256, 384, 512, 768, 1024]
    limit = SearchLimit(tiles_of_the_run * flops(512), seconds=math.inf)
    if count_search_flops(predictor, sides) > limit.most_flops:
        assert tiles_of_the_run < 200
        assert choose_tile(predictor, sides, limit=limit).source == "default"
        return
    assert tiles_of_the_run > 60
    trial = FakeTrial(predictor, False)
    trial.times = {side: slow**i * flops(side) / 1e9 for i, side in enumerate(sides)}
    choice = tiles._choose_fastest(trial, sides, 512, limit)
    run_seconds = tiles_of_the_run * (512 / choice.tile) ** 2 * trial.times[choice.tile]
    assert sum(trial.times[side] for side in trial.tried) == trial.seconds == choice.seconds
    assert choice.seconds <= run_seconds / 20
    assert trial.flops <= limit.most_flops


def test_fastest_tile_for_real(predictor: Predictor) -> None:
    fitting = find_fitting_tiles(predictor, (30, 64))
    assert fitting == [32, 64]  # 30 isn't a multiple of the period
    choice = choose_tile(predictor, fitting)
    assert choice.tile in fitting
    assert set(choice.speeds) <= {32, 64}
    assert all(speed > 0 for speed in choice.speeds.values())
    measured = measure_speed(predictor, 64, probabilities=False)
    assert measured.speeds[64] > 0


def test_tiles_that_do_not_fit_are_left_out_or_refused(predictor: Predictor) -> None:
    config = predictor.ensemble.spec.architecture
    limit = tile_memory(config, 64)
    assert find_fitting_tiles(predictor, (64, 256), memory=limit) == [64]
    assert choose_tile(predictor, [64]) == TileChoice(64, "default")
    with pytest.raises(OptionError, match=r"a tile of 64 px needs about \d+ MiB.*smaller `tile`"):
        find_fitting_tiles(predictor, (64,), memory=limit - 1)


MEASURE = """
import ctypes, re, sys
from pathlib import Path
import numpy as np
from wsi_unet.geometry import Box
from wsi_unet.models.model import load_model
from wsi_unet.models.inference.predictor import Predictor
precision, probabilities, tile = sys.argv[2], bool(int(sys.argv[3])), int(sys.argv[4])
predictor = Predictor(load_model(sys.argv[1]), device="cpu", precision=precision, threads=1)
def status(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
def run(side):
    core = Box(512, 512, 512 + side, 512 + side)
    window = predictor.border.window(core, (9000, 9000))
    pixels = np.full((*window.shape, 3), 128, dtype=np.uint8)
    predictor.predict(pixels, window, core, (9000, 9000), probabilities=probabilities)
# Locked when touched (MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT): the kernel may take idle pages back
# before they are counted, and a peak that was missed says nothing of the upper bound.
locked = ctypes.CDLL(None).mlockall(7) == 0
run(32)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
run(tile)
estimate = predictor.memory(tile, probabilities=probabilities)
share = estimate / (status("VmHWM") - before)
print(share if locked else min(share, 1.4))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("precision", "probabilities", "tile", "architecture"),
    [
        ("float32", 0, 1024, {"base_width": 8, "depth": 3}),
        ("float32", 1, 1024, {"base_width": 8, "depth": 2, "padding": "same", "classes": 8}),
        # A CPU without the instructions takes twenty times as long in bfloat16.
        ("bfloat16", 1, 448, {"base_width": 16, "depth": 2, "upsampling": "bilinear"}),
    ],
)
def test_memory_estimate_against_the_process(
    make_model: MakeModel,
    precision: str,
    probabilities: int,
    tile: int,
    architecture: dict[str, object],
) -> None:
    path = make_model(**architecture).path
    command = [sys.executable, "-c", MEASURE, str(path), precision, str(probabilities), str(tile)]
    # Dask leaves what it sets for worker processes in the environment of this one.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("MALLOC_")}
    share = math.inf
    # A kernel short of memory takes idle pages back, so a peak can be missed, never invented.
    for _ in range(3):
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=300, env=environment
        )
        share = min(share, float(done.stdout))
    # Processors differ in the scratch space their kernels take, and those with 16-bit matrix units
    # take least; above is only caution.
    assert 0.85 < share < (1.8 if precision == "float32" else 2.6)


def test_memory_grows_with_everything() -> None:
    small = UNetConfig(base_width=16)
    assert window_side(small, 384) == 572
    assert tile_memory(small, 512) < tile_memory(small, 1024)
    assert tile_memory(small, 512, "bfloat16") < tile_memory(small, 512)
    many = UNetConfig(base_width=16, classes=40)
    assert tile_memory(many, 512) < tile_memory(many, 512, probabilities=True)
    assert tile_memory(small, 512) < tile_memory(UNetConfig(base_width=32), 512)
    assert largest_map(UNetConfig(), 384) == 64 * 570 * 570
    assert largest_map(UNetConfig(), 4096) > 2**31


def test_agreement_is_measured(make_model: MakeModel) -> None:
    model = make_model()
    exact, rough = (
        Predictor(model, device="cpu", precision=p, threads=1) for p in ("float32", "bfloat16")
    )
    core = Box(48, 48, 112, 112)
    window = exact.border.window(core, (400, 400))
    pixels = np.random.default_rng(0).integers(0, 256, (*window.shape, 3), dtype=np.uint8)
    labels = [p.predict(pixels, window, core, (400, 400)).labels for p in (exact, rough)]
    share = measure_agreement(rough, [(pixels, window, core)], (400, 400))
    assert share is not None
    assert share == (labels[0] == labels[1]).mean()
    assert 0.9 < share < 1
    assert measure_agreement(exact, [(pixels, window, core)], (400, 400)) == 1
    assert measure_agreement(rough, [], (400, 400)) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "'gpu' is none of 'auto', 'cpu', 'cuda', 'cuda:0'"),
        ("cuda:x", "is none of 'auto', 'cpu', 'cuda'"),
        ("cuda:", "is none of 'auto', 'cpu', 'cuda'"),
        ("cuda:99", "isn't here: .* use `device=cpu`"),
    ],
)
def test_devices_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        devices.resolve_device(name)


@pytest.mark.parametrize(
    ("name", "kind", "index"),
    [("auto", "auto", None), ("cpu", "cpu", None), ("cuda", "cuda", None), ("cuda:10", "cuda", 10)],
)
def test_names_of_devices(name: str, kind: str, index: int | None) -> None:
    assert parse_device_name(name) == DeviceName(kind, index)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["", "cpu:0", "auto:0", "cuda:-1", "cuda:1\n", "cuda:\u0661", "CPU"]
)
def test_what_names_no_device(name: str) -> None:
    with pytest.raises(OptionError, match="is none of 'auto', 'cpu', 'cuda', 'cuda:0'") as caught:
        parse_device_name(name)
    assert caught.value.option == "device"


def test_devices_and_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.resolve_device("cpu") == "cpu"
    described = devices.describe_devices()
    assert described[-1].name == "cpu"
    assert described[0].name == devices.resolve_device("auto")
    assert devices.measure_matmul_rate("cpu", "float32", seconds=0.01) > 1e8
    for amx, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda amx=amx: {"amx_bf16": amx})
        assert devices.has_matrix_units("cpu") is amx
        assert devices.resolve_precision("auto", "cpu") == expected
    assert devices.resolve_precision("bfloat16", "cpu") == "bfloat16"
    with pytest.raises(OptionError, match="doesn't compute in float16"):
        devices.resolve_precision("float16", "cpu")
    with pytest.raises(OptionError, match="'int8' is none of auto, float32, bfloat16, float16"):
        devices.resolve_precision("int8", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert devices.resolve_precision("auto", "cuda:0") == "float32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert devices.resolve_precision("auto", "cuda:0") == "bfloat16"


def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    code = "from wsi_unet.models.inference.devices import keep_freed_memory as f; print(f())"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() in ("True", "False")

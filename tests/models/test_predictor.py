"""The predictor against a plain forward pass, and its effects on the rest of the process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wsi_unet.errors import ModelError, OptionError
from wsi_unet.geometry import Box
from wsi_unet.models.inference.predictor import Prediction, Predictor
from wsi_unet.models.model import Model
from wsi_unet.models.networks.folding import fold_batch_norm
from wsi_unet.models.saving import save_model

MakeModel = Callable[..., Model]
Pixels = NDArray[np.uint8]

CORE = Box(48, 32, 80, 56)


SHAPE = (400, 400)


def window_for(predictor: Predictor) -> tuple[Pixels, Box]:
    """Return random pixels around CORE, and the window that they cover."""
    window = predictor.border.window(CORE, SHAPE)
    pixels = np.random.default_rng(2).integers(0, 256, (*window.shape, 3), dtype=np.uint8)
    return pixels, window


def predict(predictor: Predictor, probabilities: bool = False) -> Prediction:
    pixels, window = window_for(predictor)
    return predictor.predict(pixels, window, CORE, SHAPE, probabilities=probabilities)


def plain_logits(model: Model, pixels: Pixels, core: Box) -> NDArray[np.float64]:
    """Predict in float64, without anything that the predictor does for speed."""
    spec = model.spec
    image = torch.from_numpy(pixels.astype(np.float64) / 255).permute(2, 0, 1)
    if spec.channel_order == "bgr":
        image = image[[2, 1, 0]]
    if spec.channel_order == "gray":
        image = (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2])[None]
    mean, std = (
        torch.tensor(n)[:, None, None] for n in (spec.normalisation.mean, spec.normalisation.std)
    )
    with torch.inference_mode():
        output: torch.Tensor = model.build().double()(((image - mean) / std)[None])[0]
    logits: NDArray[np.float64] = output[(slice(None), *core.slices())].numpy()
    return logits


GRAY: dict[str, object] = {
    "channel_order": "gray",
    "scaling": {"mean": (0.6,), "std": (0.2,)},
}


@pytest.mark.parametrize(
    ("changes", "architecture"),
    [
        ({}, {}),
        ({"background": "b"}, {"padding": "same", "norm": "batch"}),
        ({"background": None}, {"upsampling": "bilinear", "norm": "batch", "convolutions": 3}),
        ({"channel_order": "bgr", "background": "c"}, {"padding": "same", "dropout": 0.5}),
        (GRAY, {"in_channels": 1, "classes": 3}),
    ],
)
def test_equals_a_plain_forward(
    make_model: MakeModel, changes: dict[str, object], architecture: dict[str, object]
) -> None:
    model = make_model(changes, **architecture)
    predictor = Predictor(model, device="cpu", precision="float32", threads=1)
    pixels, window = window_for(predictor)
    logits = plain_logits(model, pixels, predictor.border.core_in_output(CORE, window))
    result = predict(predictor, probabilities=True)
    expected = np.array(model.spec.label_values)[logits.argmax(0)]
    ordered = np.sort(logits, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-4
    assert clear.mean() > 0.99
    assert result.labels.dtype == np.uint8
    assert result.labels.shape == (1, *CORE.shape)
    assert np.array_equal(result.labels[0][clear], expected[clear])
    assert len(np.unique(result.labels)) > 1
    exponents = np.exp(logits - logits.max(0))
    softmax = exponents / exponents.sum(0)
    assert result.probabilities is not None
    assert result.probabilities.dtype == np.uint8
    assert np.abs(result.probabilities - 255 * softmax).max() < 0.51
    sums = result.probabilities.sum(0, dtype=int)
    assert np.abs(sums - 255).max() <= model.spec.architecture.classes // 2 + 1
    assert predictor.label_count == max(model.spec.label_values) + 1


def test_ties_go_to_the_first_class(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model({"background": "c"})
    network = model.build()
    torch.nn.init.zeros_(network.get_parameter("head.weight"))
    torch.nn.init.zeros_(network.get_parameter("head.bias"))
    even = save_model(network, model.spec, tmp_path / "even")
    labels = predict(Predictor(even, device="cpu", precision="float32", threads=1)).labels
    assert (labels == 1).all()  # class "a", as numpy's and torch's argmax have it


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_bytes_again_and_from_many_threads(make_model: MakeModel, precision: str) -> None:
    predictor = Predictor(make_model(), device="cpu", precision=precision, threads=1)
    first = predict(predictor).labels
    with ThreadPoolExecutor(6) as pool:
        for later in pool.map(lambda _: predict(predictor), range(24)):
            assert np.array_equal(later.labels, first)
            assert later.seconds_busy > 0
            assert later.seconds_waited >= 0


def test_only_one_forward_at_a_time_even_of_two_models(
    make_model: MakeModel, tmp_path: Path
) -> None:
    predictors = [
        Predictor(make_model(path=tmp_path / name), device="cpu", precision="float32", threads=1)
        for name in ("one", "two")
    ]
    running, most, guard = 0, 0, threading.Lock()

    def count(change: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            nonlocal running, most
            with guard:
                running += change
                most = max(most, running)

        return hook

    for predictor in predictors:
        network = predictor.networks[0].module
        network.register_forward_pre_hook(count(1))
        network.register_forward_hook(count(-1))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: predict(predictors[i % 2]), range(12)))
    assert (running, most) == (0, 1)


def settings_now() -> list[object]:
    b = torch.backends
    parts = (b.cudnn.conv, b.cuda.matmul, b.mkldnn.conv, b.mkldnn.matmul)  # type: ignore[attr-defined]
    return [*(part.fp32_precision for part in parts), torch.get_num_threads()]


def test_float32_means_float32_and_settings_come_back(make_model: MakeModel) -> None:
    predictor = Predictor(make_model(), device="cpu", precision="float32", threads=2)
    seen: list[list[object]] = []
    predictor.networks[0].module.register_forward_hook(lambda *_: seen.append(settings_now()))
    before_all = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # allows TF32 and bfloat16
    try:
        before = settings_now()
        predict(predictor)
        assert seen == [["ieee"] * 4 + [2 // predictor.slots]]
        assert settings_now() == before
        assert before[3] == "bf16"
        with pytest.raises(ValueError, match="not inside"):
            predictor.predict(*window_for(predictor), Box(48, 32, 4048, 36), SHAPE)
        assert settings_now() == before
    finally:
        torch.set_float32_matmul_precision(before_all)
    assert torch.backends.cudnn.allow_tf32  # the older way of asking still works


def test_threads_are_set_where_the_network_runs() -> None:
    """OMP_NUM_THREADS=1, as in a Dask worker process, and another thread than the main one."""
    code = """
import threading, torch
from wsi_unet.cores import usable_cores
from wsi_unet.models.inference.devices import cpu_threads
assert torch.get_num_threads() == 1
seen = []
def work():
    with cpu_threads(2):
        seen.append(torch.get_num_threads())
    seen.append(torch.get_num_threads())
thread = threading.Thread(target=work); thread.start(); thread.join()
assert seen == [2, 1], seen
assert usable_cores() >= 1
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


def test_wrong_windows_are_the_callers_error(make_model: MakeModel) -> None:
    predictor = Predictor(make_model(), device="cpu", precision="float32", threads=1)
    pixels, window = window_for(predictor)
    for wrong in (pixels[..., :1], pixels.astype(np.float32), pixels[0], pixels[:-1]):
        with pytest.raises(ValueError, match="uint8"):
            predictor.predict(wrong, window, CORE, SHAPE)  # type: ignore[arg-type]
    shorter = Box(window.y0, window.x0, window.y1 - 1, window.x1)
    with pytest.raises(ValueError, match="doesn't fit"):
        predictor.predict(pixels[:-1], shorter, CORE, SHAPE)
    read_only = pixels.copy()
    read_only.flags.writeable = False
    assert np.array_equal(
        predictor.predict(read_only, window, CORE, SHAPE).labels, predict(predictor).labels
    )


def test_out_of_memory_names_the_option(make_model: MakeModel) -> None:
    predictor = Predictor(make_model(), device="cpu", precision="float32", threads=1)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ):
        with (
            mock.patch.object(predictor.networks[0].module, "forward", side_effect=error),
            pytest.raises(OptionError, match="use a smaller `tile`"),
        ):
            predict(predictor)
    with (
        mock.patch.object(
            predictor.networks[0].module, "forward", side_effect=RuntimeError("a bug")
        ),
        pytest.raises(RuntimeError, match="a bug"),
    ):
        predict(predictor)


def test_overflow_is_an_error_not_background(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    network = model.build()
    with torch.no_grad():
        network.get_parameter("head.weight").fill_(3e38)
    wild = save_model(network, model.spec, tmp_path / "wild")
    with pytest.raises(ModelError, match="NaN or infinite numbers"):
        predict(Predictor(wild, device="cpu", precision="float32", threads=1))


def test_batch_norm_is_folded_exactly(make_model: MakeModel) -> None:
    network = make_model(norm="batch", padding="same").build().double()
    folded = fold_batch_norm(network)
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(folded(image), network(image), rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_gpu_agrees_with_the_cpu(make_model: MakeModel, precision: str) -> None:
    model = make_model(norm="batch")
    cpu = predict(Predictor(model, device="cpu", precision="float32"), probabilities=True)
    predictor = Predictor(model, device="cuda", precision=precision)
    with ThreadPoolExecutor(4) as pool:
        for gpu in pool.map(lambda _: predict(predictor, probabilities=True), range(8)):
            assert (gpu.labels == cpu.labels).mean() > (0.9999 if precision == "float32" else 0.97)
            assert gpu.probabilities is not None
            assert cpu.probabilities is not None
            far = np.abs(gpu.probabilities.astype(int) - cpu.probabilities).max()
            assert far <= (1 if precision == "float32" else 25)

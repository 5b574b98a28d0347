"""Any torch module as a model of this process: other people's architectures, end to end."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from support.oracle import textured, write_png
from support.programs import alive, spec_for
from torch import Tensor, nn

import wsi_unet
from wsi_unet.errors import ModelError
from wsi_unet.models import Model, measure_module
from wsi_unet.models.architectures.program import ProgramConfig
from wsi_unet.models.importing.modules import model_from_module


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Fcn(nn.Module):
    """A small FCN (Long, Shelhamer, Darrell 2015): poolings, scores of two levels, upsampled."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.skip, self.score = nn.Conv2d(6, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        half = F.max_pool2d(F.relu(self.one(image)), 2)
        quarter = F.max_pool2d(F.relu(self.two(half)), 2)
        joined = doubled(self.score(quarter)) + self.skip(half)
        return doubled(joined)


class SegNet(nn.Module):
    """A small SegNet (Badrinarayanan, Kendall, Cipolla 2017), unpooled to where the maxima were."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.up = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        pooled, places = F.max_pool2d(F.relu(self.down(image)), 2, return_indices=True)
        output: Tensor = self.up(F.max_unpool2d(F.relu(self.middle(pooled)), places, [2, 2]))
        return output


class DeepLab(nn.Module):
    """A small DeepLab (Chen et al. 2017): dilated convolutions and optional global pooling."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled
        self.stem = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.rates = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=r, dilation=r) for r in (1, 4))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem(image))
        x = torch.cat([F.relu(convolution(x)) for convolution in self.rates], 1)
        if self.pooled:
            x = x + x.mean((2, 3), keepdim=True)
        output: Tensor = F.interpolate(self.head(x), scale_factor=2.0, mode="nearest")
        return output


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return textured(230, 300)


def balanced(network: nn.Module, last: str, image: NDArray[np.uint8]) -> nn.Module:
    torch.set_num_threads(1)
    alive(network)
    with torch.inference_mode():
        bias = network.get_parameter(f"{last}.bias")
        bias.sub_(whole_logits(network, image).mean((1, 2)))
    return network


def whole_logits(network: nn.Module, image: NDArray[np.uint8]) -> Tensor:
    """Return the logits of one pass over the image, mirrored by far more than any border here."""
    rows, columns, _ = image.shape
    padded = np.pad(image, ((64, 64 + -rows % 8), (64, 64 + -columns % 8), (0, 0)), mode="reflect")
    scaled = torch.from_numpy((padded.astype(np.float32) / 255 - 0.6) / 0.25)
    with torch.inference_mode():
        output: Tensor = network(scaled.permute(2, 0, 1)[None])[0]
    return output[:, 64 : 64 + rows, 64 : 64 + columns]


@pytest.mark.parametrize(
    ("make", "last", "period"),
    [(Fcn, "score", 4), (SegNet, "up", 2), (lambda: DeepLab(False), "head", 2)],
)
def test_other_architectures_run_exactly(
    make: type[nn.Module], last: str, period: int, image: NDArray[np.uint8], tmp_path: Path
) -> None:
    network = balanced(make(), last, image)
    config = measure_module(network)
    assert (config.kind, config.period, config.local, config.depends_on_size) == (
        "module",
        period,
        True,
        False,
    )
    model = model_from_module(network, spec_for(config))
    assert model.spec.exactness == "exact"
    slide = write_png(tmp_path / "slide.png", image)
    options = {"tissue": "none", "precision": "float32", "device": "cpu"}
    report = wsi_unet.segment(slide, tmp_path / "a.zarr", model, block=512, tile=64, **options)  # type: ignore[arg-type]
    logits = whole_logits(network, image)
    decided = (logits[0] - logits[1]).abs().numpy() > 1e-4
    expected = logits.argmax(0).numpy()
    assert 0.05 < expected.mean() < 0.95
    assert np.array_equal(wsi_unet.open_labels(report.output).values[decided], expected[decided])
    lazy = wsi_unet.map_unet(image, model, tile=32, chunk=64, precision="float32", device="cpu")
    assert np.array_equal(lazy.compute()[decided], expected[decided])


def test_a_global_one_is_approximate_and_runs(image: NDArray[np.uint8], tmp_path: Path) -> None:
    network = balanced(DeepLab(True), "head", image)
    config = measure_module(network)
    assert not config.local
    with pytest.raises(ValueError, match="needs the side of the windows"):
        spec_for(config)
    model = model_from_module(network, spec_for(config, window=256))
    assert model.spec.exactness == "approximate"
    slide = write_png(tmp_path / "slide.png", image)
    report = wsi_unet.segment(slide, tmp_path / "a.zarr", model, tissue="none", block=512)
    assert report.state == "finished"


@pytest.fixture
def model() -> Model:
    return model_from_module(alive(Fcn()), spec_for(config_of()))


def config_of() -> ProgramConfig:
    return ProgramConfig(
        kind="module",
        in_channels=3,
        classes=2,
        period=4,
        before=12,
        after=12,
        local=True,
        depends_on_size=False,
    )


def test_other_processes_are_refused_with_advice(model: Model, tmp_path: Path) -> None:
    slide = write_png(tmp_path / "slide.png", textured(64, 64))
    message = "lives in the process that made it: for other processes, export it"
    with pytest.raises(ModelError, match=message):
        wsi_unet.segment(
            slide,
            tmp_path / "a.zarr",
            model,
            tissue="none",
            cluster=wsi_unet.ClusterOptions(workers=1),
        )
    with pytest.raises(ModelError, match=message):
        pickle.dumps(model)


def test_the_hash_knows_weights_code_and_settings(model: Model) -> None:
    class Fcn2(Fcn):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) * 2

    spec = spec_for(config_of())
    assert model_from_module(alive(Fcn()), spec).sha256 == model.sha256
    renamed = model_from_module(alive(Fcn()), spec_for(config_of(), description="other"))
    assert renamed.sha256 == model.sha256
    assert renamed.spec.description == "other"
    others = [alive(Fcn(), seed=1), alive(Fcn2())]
    changed = alive(Fcn())
    changed.factor = 3  # type: ignore[assignment]
    hashes = {model_from_module(network, spec).sha256 for network in [*others, changed]}
    assert len(hashes | {model.sha256}) == 4


def test_training_on_does_not_change_the_model() -> None:
    network = alive(Fcn())
    model = model_from_module(network, spec_for(config_of()))
    before = model.build().state_dict()["one.weight"].clone()
    with torch.no_grad():
        network.get_parameter("one.weight").zero_()
    assert torch.equal(model.build().state_dict()["one.weight"], before)


def test_weights_that_are_not_finite_are_refused() -> None:
    network = alive(Fcn())
    with torch.no_grad():
        network.get_parameter("one.bias")[0] = torch.nan
    with pytest.raises(ModelError, match=r"one\.bias holds NaN"):
        model_from_module(network, spec_for(config_of()))

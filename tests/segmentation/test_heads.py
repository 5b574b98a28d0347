"""Sigmoid heads, and networks that end in their head: labels of the whole image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.exactness import network_of, segment_labels
from support.oracle import MARGIN, balanced_model, textured, whole_image_logits, write_png

import wsi_unet
from wsi_unet.errors import OutputError
from wsi_unet.models import ModelSpec

SHAPE = (600, 530)
SIGMOID: dict[str, Any] = {"head": "sigmoid", "background": None}


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return textured(*SHAPE)


@pytest.fixture(scope="module")
def slide(image: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_png(tmp_path_factory.mktemp("heads") / "slide.png", image)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return result


def assert_above(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float64], threshold: float
) -> None:
    decided = np.abs(probabilities - threshold) > MARGIN / 4
    assert decided.mean() > 0.999
    expected = probabilities > threshold
    assert 0.05 < expected.mean() < 0.95
    assert np.array_equal(labels[decided], expected[decided])


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_one_class_is_there_above_its_threshold(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path, threshold: float
) -> None:
    config = network_of("valid", "transpose", 2, classes=1)
    thresholds = None if threshold == 0.5 else (threshold,)
    _, network = balanced_model(config, image, tmp_path / "model", thresholds=thresholds, **SIGMOID)
    labels = segment_labels(
        slide, tmp_path / "out", tmp_path / "model", outputs=("labels", "probabilities")
    )
    expected = sigmoid(whole_image_logits(network, config, image))
    assert_above(labels, expected[0], threshold)
    opened = wsi_unet.open_labels(tmp_path / "out")
    assert opened.attrs["classes"] == {0: "background", 1: "class-0"}
    stored = wsi_unet.open_probabilities(tmp_path / "out")
    assert list(stored.c.values) == ["class-0"]
    assert np.abs(stored.values / 255 - expected).max() <= 0.5 / 255 + 1e-4


class Overlapping:
    """Return a finished run with three classes that overlap."""

    THRESHOLDS = (0.3, 0.5, 0.7)
    NAMES = ("random.class-0", "random.class-1", "random.class-2")

    def __init__(self, folder: Path, slide: Path, image: NDArray[np.uint8]) -> None:
        self.slide, self.output, self.model = slide, folder / "out", folder / "model"
        config = network_of("same", "bilinear", 2, classes=3)
        _, network = balanced_model(
            config, image, self.model, thresholds=self.THRESHOLDS, **SIGMOID
        )
        self.expected = sigmoid(whole_image_logits(network, config, image))
        self.report = self.run()

    def run(self, **options: Any) -> wsi_unet.Report:
        settings: dict[str, Any] = {
            "tissue": "none",
            "precision": "float32",
            "device": "cpu",
            "block": 512,
            "tile": 256,
            "outputs": ("labels", "probabilities"),
        }
        return wsi_unet.segment(self.slide, self.output, self.model, **(settings | options))

    def labels(self, number: int, level: int = 0) -> NDArray[np.uint8]:
        opened = wsi_unet.open_labels(self.output, self.NAMES[number], level)
        return np.asarray(opened.values)


@pytest.fixture
def overlapping(image: NDArray[np.uint8], slide: Path, tmp_path: Path) -> Overlapping:
    return Overlapping(tmp_path, slide, image)


def test_classes_that_overlap_have_labels_each(overlapping: Overlapping) -> None:
    for number, name in enumerate(overlapping.NAMES):
        labels = overlapping.labels(number)
        assert_above(labels, overlapping.expected[number], overlapping.THRESHOLDS[number])
        opened = wsi_unet.open_labels(overlapping.output, name)
        assert opened.attrs["classes"] == {0: "background", 1: f"class-{number}"}
        assert opened.attrs["colors"][1] == f"#{40 * number:02x}80ff"
        assert opened.attrs["pixels"][1] == np.count_nonzero(labels)
        assert opened.attrs["pixels"][0] == np.count_nonzero(labels == 0)
        assert opened.attrs["finished"]
        halved = overlapping.labels(number, level=1)
        # 2 x 2 mode: background loses ties
        pairs = labels.reshape(SHAPE[0] // 2, 2, SHAPE[1] // 2, 2).sum((1, 3))
        assert np.array_equal(halved, pairs >= 2)
        area = overlapping.report.classes[number]
        assert (area.group, area.name, area.value) == (name, f"class-{number}", 1)
        assert area.pixels == np.count_nonzero(labels)
        assert area.fraction == pytest.approx(labels.mean())
    overlap = np.sum([overlapping.labels(number) for number in range(3)], axis=0)
    assert overlap.max() == 3
    stored = wsi_unet.open_probabilities(overlapping.output)
    assert stored.shape == (3, *SHAPE)
    assert np.abs(stored.values / 255 - overlapping.expected).max() <= 0.5 / 255 + 1e-4


def test_overlapping_classes_are_one_run(overlapping: Overlapping) -> None:
    status = wsi_unet.run_status(overlapping.output, verify=True)
    assert [run.label for run in status] == ["random", "image"]
    assert status[0].groups == overlapping.NAMES
    assert all(run.state == "finished" for run in status)
    markers = [*(overlapping.output / ".wsi_unet" / "random" / "blocks").glob("*.json")]
    assert len(markers) == 4
    before = [overlapping.labels(number) for number in range(3)]
    # One damaged shard of one class: that block is computed again, for all of them.
    shard = overlapping.output / "labels" / overlapping.NAMES[1] / "0" / "c" / "0" / "1"
    shard.write_bytes(b"torn")
    (run, _) = wsi_unet.run_status(overlapping.output)
    assert (run.state, run.blocks.done) == ("unfinished", 3)
    again = overlapping.run()
    assert (again.state, again.blocks.resumed) == ("finished", 3)
    assert again.classes == overlapping.report.classes
    for number in range(3):
        assert np.array_equal(overlapping.labels(number), before[number])
    assert overlapping.run().blocks.resumed == 4


@pytest.mark.parametrize("content", [None, "{", '{"attributes": {"ome": {}, "wsi_unet": {}}}'])
def test_lost_metadata_of_one_class_is_mended(
    overlapping: Overlapping, content: str | None
) -> None:
    before = [overlapping.labels(number) for number in range(3)]
    document = overlapping.output / "labels" / overlapping.NAMES[1] / "zarr.json"
    if content is None:
        document.unlink()
    else:
        document.write_text(content)
    state = {run.label: run.state for run in wsi_unet.run_status(overlapping.output)}
    assert state["random"] == "unfinished"
    again = overlapping.run()
    assert (again.state, again.blocks.resumed) == ("finished", 4)
    assert again.classes == overlapping.report.classes
    for number in range(3):
        assert np.array_equal(overlapping.labels(number), before[number])
    assert [run.label for run in wsi_unet.run_status(overlapping.output)] == ["random", "image"]


def test_overlapping_classes_are_replaced_together(
    overlapping: Overlapping, image: NDArray[np.uint8], tmp_path: Path
) -> None:
    config = network_of("valid", "transpose", 1)
    balanced_model(config, image, tmp_path / "other", name="random.class-1")
    with pytest.raises(OutputError, match=r"'random.class-1' there belong to 'random'"):
        wsi_unet.segment(overlapping.slide, overlapping.output, tmp_path / "other", tissue="none")
    balanced_model(config, image, tmp_path / "beside", name="beside")
    wsi_unet.segment(
        overlapping.slide, overlapping.output, tmp_path / "beside", tissue="none", block=512
    )
    kept = wsi_unet.open_labels(overlapping.output, "beside").values
    assert overlapping.run(overwrite=True, tile=128).blocks.resumed == 0
    assert [run.label for run in wsi_unet.run_status(overlapping.output)] == [
        "beside",
        "random",
        "image",
    ]
    assert np.array_equal(wsi_unet.open_labels(overlapping.output, "beside").values, kept)
    png = wsi_unet.write_overlay(overlapping.output, tmp_path / "o.png", overlapping.NAMES[2])
    assert png.stat().st_size > 1000
    every = wsi_unet.write_overlay(overlapping.output, tmp_path / "p.png")
    assert every.read_bytes() != png.read_bytes()


def test_the_tissue_mask_holds_for_every_class(
    overlapping: Overlapping, tmp_path: Path, image: NDArray[np.uint8]
) -> None:
    mask = np.zeros((60, 53), np.uint8)
    mask[10:40, 5:30] = 255
    path = write_png(tmp_path / "mask.png", mask)
    unmasked = [overlapping.labels(number) for number in range(3)]
    report = overlapping.run(overwrite=True, tissue=str(path))
    inside = np.kron(mask > 0, np.ones((10, 10), bool))
    for number in range(3):
        assert np.array_equal(overlapping.labels(number), unmasked[number] * inside)
        area = report.classes[number]
        assert area.fraction == pytest.approx(unmasked[number][inside].mean())


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_networks_that_end_in_their_head(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path, head: str
) -> None:
    """Output counts as probabilities; here it is beyond 0 and 1, and is clipped."""
    config = network_of("valid", "transpose", 1, classes=2)
    changes: dict[str, Any] = {"head": head, "activated": True}
    if head == "sigmoid":
        changes |= {"background": None, "thresholds": (0.2, 0.6)}
    _, network = balanced_model(config, image, tmp_path / "model", **changes)
    report = wsi_unet.segment(
        slide, tmp_path / "out", tmp_path / "model", tissue="none", precision="float32",
        device="cpu", block=512, tile=256, outputs=("labels", "probabilities"),
    )  # fmt: skip
    output = whole_image_logits(network, config, image)
    groups = [area.group for area in report.classes]
    if head == "softmax":
        decided = np.abs(output[0] - output[1]) > MARGIN
        labels = wsi_unet.open_labels(tmp_path / "out").values
        assert np.array_equal(labels[decided], output.argmax(0)[decided])
    else:
        for number, (group, threshold) in enumerate(zip(groups, (0.2, 0.6), strict=True)):
            labels = wsi_unet.open_labels(tmp_path / "out", group).values
            assert_above(labels, output[number].astype(np.float64), threshold)
    stored = wsi_unet.open_probabilities(tmp_path / "out").values
    assert np.abs(stored / 255 - output.clip(0, 1)).max() <= 0.5 / 255 + 1e-4


def test_class_names_become_group_names() -> None:
    from wsi_unet.models.inference.label_groups import list_label_groups

    names = ["Gland (benign)", "gland [benign]", "Gland [benign]", "ü", "x" * 100, "x" * 99]
    spec = ModelSpec.model_validate(
        {
            "name": "prostate",
            "architecture": {"depth": 1, "base_width": 2, "classes": len(names)},
            "classes": [{"name": name, "color": "#123456"} for name in names],
            "mpp": None,
            "scaling": {"mean": [0, 0, 0], "std": [1, 1, 1]},
            **SIGMOID,
        }
    )
    groups = [group.name for group in list_label_groups(spec, spec.name)]
    assert groups[:4] == [
        "prostate.Gland-benign",
        "prostate.gland-benign",
        "prostate.Gland-benign-2",
        "prostate.class",
    ]
    assert [len(name) for name in groups[4:]] == [64, 64]
    assert len(set(groups)) == len(groups)

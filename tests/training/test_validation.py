"""Measured scores, against one forward pass over the whole mirrored image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.oracle import whole_image_forward, whole_image_logits
from support.training import Squares, small_recipe, squares

from wsi_unet.geometry import Box
from wsi_unet.models import ModelSpec, Normalisation, UNet, UNetConfig
from wsi_unet.training.artifacts.pictures import LabelledWindow
from wsi_unet.training.fields import IGNORED, NOTHING
from wsi_unet.training.loop.learner import DivergedError
from wsi_unet.training.loop.scores import PixelCounts, Scores, score_columns, score_values
from wsi_unet.training.loop.validation import (
    TILE,
    FieldLabeller,
    network_as_model,
    pick_evenly,
    tile_cores,
)

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.25, 0.2)


def spec_of(config: UNetConfig, *, classes: int = 2, **more: Any) -> ModelSpec:
    names = [{"name": f"c{i}", "color": f"#0000{i:02x}"} for i in range(classes)]
    document = {"name": "n", "classes": names, "background": "c0", "mpp": None} | more
    document["architecture"] = config.model_dump()
    document["scaling"] = Normalisation(mean=MEAN, std=STD).model_dump()
    return ModelSpec.model_validate(document)


def lively(config: UNetConfig) -> UNet:
    """Return a network whose classes all occur, with batch statistics that matter."""
    torch.manual_seed(1)
    network = UNet(config)
    network.train()
    with torch.no_grad():
        side = 2 * config.border().shrink + 64 if config.padding == "valid" else 64
        side = next(n for n in range(side, side + 64) if _fits(config, n))
        for _ in range(20):
            network(torch.randn(2, 3, side, side))
        network.eval()
        logits = network(torch.randn(2, 3, side, side))
        assert network.head.bias is not None
        network.head.bias -= logits.mean(dim=(0, 2, 3))
    return network.eval()


def _fits(config: UNetConfig, side: int) -> bool:
    try:
        with torch.device("meta"):
            UNet(config)(torch.empty(1, 3, side, side))
    except ValueError:
        return False
    return True


def labeller(network: UNet, spec: ModelSpec) -> FieldLabeller:
    model = network_as_model(network, spec)
    return FieldLabeller(model, device="cpu", precision="float32", threads=1)


def brute_force(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], index: int) -> Any:
    """Count TP, FP, FN and TN of a class, pixel by pixel."""
    tp = fp = fn = tn = 0
    for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if t == IGNORED:
            continue
        tp += t == index and p == index
        fp += t != index and p == index
        fn += t == index and p != index
        tn += t != index and p != index
    return tp, fp, fn, tn


@pytest.mark.parametrize(
    "changes",
    [
        {"padding": "valid", "norm": "batch"},
        {"padding": "valid", "upsampling": "bilinear"},
        {"padding": "same", "norm": "batch"},
        {"padding": "same", "odd": "zeros"},
        {"padding": "same", "upsampling": "bilinear", "align_corners": True},
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_a_field_is_scored_as_one_forward_over_all_of_it_would_be(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_unet.training.loop.validation.TILE", 32)
    config = UNetConfig.model_validate({"depth": 2, "base_width": 4, "classes": 3} | changes)
    network, field = lively(config), squares(4, (75, 101), classes=3)
    spec = spec_of(config, classes=3)
    whole = whole_image_forward(network, config, field.image, mean=MEAN, std=STD)
    ignored = Squares(field.image, np.where(whole.decided, field.labels, IGNORED))
    assert whole.decided.mean() > 0.98
    scores = labeller(network, spec).measure([ignored])
    assert scores.pixels == whole.decided.sum()
    for index, found in enumerate(scores.classes):
        tp, fp, fn, _ = brute_force(ignored.labels, whole.labels, index)
        assert min(tp, fp, fn) > 0, "a case that tells"
        assert found.dice == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert found.iou == pytest.approx(tp / (tp + fp + fn))
        assert found.precision == pytest.approx(tp / (tp + fp))
        assert found.recall == pytest.approx(tp / (tp + fn))
        assert found.pixels == tp + fn
    wrong = (ignored.labels != whole.labels) & whole.decided
    assert scores.pixel_error == pytest.approx(wrong.sum() / whole.decided.sum())
    assert scores.mean_dice == pytest.approx(np.mean([one.dice for one in scores.classes[1:]]))
    assert scores.mean_iou == pytest.approx(np.mean([one.iou for one in scores.classes[1:]]))


def test_large_fields_are_measured_at_evenly_spaced_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_unet.training.loop.validation.TILE", 32)
    config = UNetConfig(padding="same", depth=2, base_width=4)
    network, field = lively(config), squares(4, (96, 128))
    measured = labeller(network, spec_of(config))
    assert measured.measure([field], tiles=12) == measured.measure([field])
    part = measured.measure([field], tiles=4)
    assert part.pixels == 4 * 32 * 32
    corners = np.full(field.labels.shape, IGNORED, np.uint8)
    for row, column in ((0, 1), (1, 0), (1, 3), (2, 2)):  # the 2nd, 5th, 8th and 11th of twelve
        box = Box.from_shape((32, 32)).shift(32 * row, 32 * column).slices()
        corners[box] = field.labels[box]
    assert part == measured.measure([Squares(field.image, corners)])


@given(count=st.integers(0, 50), most=st.integers(1, 60))
def test_picking_evenly_keeps_order_and_extent(count: int, most: int) -> None:
    kept = pick_evenly(range(count), most)
    assert len(kept) == min(count, most)
    assert kept == sorted(set(kept))
    gaps = np.diff([-1, *kept, count])
    assert gaps.max() <= 2 * max(1, math.ceil(count / most))


@pytest.mark.parametrize("classes", [1, 3])
def test_sigmoid_heads_are_asked_class_by_class(classes: int) -> None:
    config = UNetConfig(padding="same", depth=1, base_width=4, classes=classes)
    network, field = lively(config), squares(4, (40, 52), classes=classes)
    spec = spec_of(config, classes=classes, head="sigmoid", background=None)
    labels = field.labels.copy()
    labels[:9] = NOTHING
    labels[-5:] = IGNORED
    scores = labeller(network, spec).measure([Squares(field.image, labels)])
    logits = whole_image_logits(network, config, field.image, MEAN, STD)
    errors = []
    for index, found in enumerate(scores.classes):
        predicted = np.where(logits[index] > 0, index, NOTHING).astype(np.uint8)
        tp, fp, fn, tn = brute_force(labels, predicted, index)
        assert found.dice == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert found.pixels == tp + fn
        errors.append((fp + fn) / (tp + fp + fn + tn))
    assert scores.pixel_error == pytest.approx(np.mean(errors))


def test_pixels_of_no_class_count_against_whatever_is_found_there() -> None:
    spec = spec_of(UNetConfig(classes=2), background=None)
    counts = PixelCounts(spec)
    truth = np.array([[0, 0, 1, NOTHING, NOTHING, IGNORED]], np.uint8)
    counts.add(truth, np.array([[[1, 2, 2, 1, 2, 1]]], np.uint8))  # label values 1 and 2
    scores = Scores.from_counts(counts, spec, 1)
    assert [one.dice for one in scores.classes] == [2 / 4, 2 / 4]
    assert scores.pixel_error == pytest.approx(3 / 5)
    assert scores.mean_dice == 0.5, "without a background all classes count"


def test_a_class_without_pixels_has_no_score() -> None:
    spec = spec_of(UNetConfig(classes=3), classes=3)
    counts = PixelCounts(spec)
    counts.add(np.array([[0, 1]], np.uint8), np.array([[[0, 1]]], np.uint8))
    scores = Scores.from_counts(counts, spec, 1)
    assert math.isnan(scores.classes[2].dice)
    assert scores.mean_dice == 1.0
    document = scores.to_json()
    assert document["classes"]["c2"]["dice"] is None  # type: ignore[index, call-overload]
    named = dict(zip(score_columns(["c0", "c1", "c2"]), score_values(scores), strict=True))
    assert (named["mean_dice"], named["dice c1"]) == (1.0, 1.0)


def test_label_values_are_distinguished_from_class_indices() -> None:
    spec = spec_of(UNetConfig(classes=3), classes=3, background="c2")
    assert spec.label_values == (1, 2, 0)
    counts = PixelCounts(spec)
    counts.add(np.array([[0, 1, 2]], np.uint8), np.array([[[1, 2, 0]]], np.uint8))
    assert Scores.from_counts(counts, spec, 1).pixel_error == 0


def test_a_window_that_is_fixed_is_kept_to() -> None:
    config = UNetConfig(padding="same", depth=2, base_width=4, norm="instance")
    spec = spec_of(config, window=64)
    assert spec.tile == 32
    network, field = lively(config), squares(5, (70, 90))
    parts = list(labeller(network, spec).label([(field, Box(3, 40, 69, 75))]))
    assert [part.truth.shape for part in parts] == [
        (29, 24), (29, 11), (32, 24), (32, 11), (5, 24), (5, 11)
    ]  # fmt: skip


def test_boxes_are_put_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_unet.training.loop.validation.TILE", 16)
    config = UNetConfig(padding="valid", depth=2, base_width=4)
    network, field = lively(config), squares(6, (60, 77))
    boxes = [(field, Box(0, 0, 60, 77)), (field, Box(13, 21, 46, 70))]
    whole, part = labeller(network, spec_of(config)).label_whole(boxes)
    np.testing.assert_array_equal(whole.image, field.image)
    np.testing.assert_array_equal(whole.truth, field.labels)
    inside = boxes[1][1].slices()
    np.testing.assert_array_equal(part.image, field.image[inside])
    np.testing.assert_array_equal(part.labels, whole.labels[:, *inside])
    assert len(np.unique(whole.labels)) == 2


@pytest.mark.parametrize("edge", ["zeros", "none"])
def test_cores_cover_a_box_and_stay_on_the_grid(edge: str) -> None:
    config = UNetConfig.model_validate({"padding": "same", "depth": 4, "odd": edge})
    box, shape = Box(37, 501, 1300, 700), (1301, 700)
    seen = np.zeros((1400, 800), int)
    for core in tile_cores(config.border(), box, shape):
        assert (core.y0 % 16, core.x0 % 16) == (0, 0)
        for last, side in ((core.y1, shape[0]), (core.x1, shape[1])):
            assert last % 16 == 0 or (edge == "zeros" and last == side)
        assert max(core.shape) <= TILE
        seen[core.slices()] += 1
    assert seen.max() == 1
    assert (seen[box.slices()] == 1).all()


def test_numbers_that_arent_finite_stop_it() -> None:
    config = UNetConfig(padding="same", depth=1, base_width=2)
    network = UNet(config)
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    with pytest.raises(DivergedError, match="computes NaN or infinite numbers where squares 0"):
        labeller(network, spec_of(config)).measure([squares()])


def test_the_network_in_training_is_left_as_it_is() -> None:
    network = UNet(small_recipe().network).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    spec = spec_of(network.config)
    assert isinstance(
        next(labeller(network, spec).label([(squares(), Box(0, 0, 9, 9))])), LabelledWindow
    )
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss
from torch import Tensor
from torch.nn import functional as F

from wsi_unet.errors import RecipeError
from wsi_unet.training.augmentation.class_balance import class_balance
from wsi_unet.training.fields import IGNORED, NOTHING
from wsi_unet.training.loop.losses import TERMS, Head, Loss, build_loss
from wsi_unet.training.recipe_sections import LossTerm

PAIRS = [(head, name) for head in TERMS for name in TERMS[head]]


def one(
    name: str, head: Head = "softmax", background_class: int | None = 0, **settings: float
) -> Loss:
    term = LossTerm.model_validate({"name": name, **settings})
    return build_loss((term,), background_class, head)


def batch(
    classes: int = 3, shape: tuple[int, ...] = (2, 7, 6), seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits in float64, labels without special values, and weights."""
    chance = torch.Generator().manual_seed(seed)
    n, h, w = shape
    return (
        2 * torch.randn(n, classes, h, w, generator=chance, dtype=torch.float64),
        torch.randint(classes, shape, generator=chance),
        torch.rand(shape, generator=chance) * 4,
    )


def gradient(loss: Loss, logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, labels, weights)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize(
    ("head", "name", "gamma"),
    [
        (head, name, gamma)
        for head, name in PAIRS
        for gamma in ((0.0, 0.5, 2.0) if name == "focal" else (2.0,))
    ],
)
def test_gradients_are_those_of_finite_differences(head: Head, name: str, gamma: float) -> None:
    logits, labels, weights = batch(shape=(2, 4, 3))
    labels[0, 1] = IGNORED
    if head == "sigmoid":
        labels[1, 2] = NOTHING
    loss = one(name, head, weight=1.7, gamma=gamma)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda tensor: loss(tensor, labels, weights), (logits,))


@pytest.mark.parametrize(("head", "name"), PAIRS)
def test_ignored_pixels_have_no_influence(head: Head, name: str) -> None:
    logits, labels, weights = batch()
    labels[0, :3] = IGNORED
    labels[1, 2, 4] = IGNORED
    ignored = labels == IGNORED
    loss = one(name, head)
    value, slopes = gradient(loss, logits, labels, weights)
    everywhere = ignored[:, None].expand_as(slopes)
    assert (slopes[everywhere] == 0).all()
    assert (slopes[~everywhere] != 0).any()
    others, heavy = logits.clone(), weights.clone()
    others[everywhere] = 37.0
    heavy[ignored] = math.inf
    again, same = gradient(loss, others, labels, heavy)
    assert again == value
    assert (same[~everywhere] == slopes[~everywhere]).all()


@pytest.mark.parametrize(("head", "name"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_nothing_is_known_nothing_is_learnt(
    head: Head, name: str, dtype: torch.dtype
) -> None:
    logits = torch.randn(1, 2, 4, 4, dtype=dtype)
    value, slopes = gradient(
        one(name, head), logits, torch.full((1, 4, 4), IGNORED), torch.ones(1, 4, 4)
    )
    assert value == 0
    assert value.dtype == torch.float32
    assert (slopes == 0).all()


@pytest.mark.parametrize(("head", "name"), PAIRS)
@pytest.mark.parametrize("size", [1e4, 60.0])
def test_extreme_logits_give_finite_losses_and_slopes(head: Head, name: str, size: float) -> None:
    logits = torch.tensor([[size, -size], [-size, size]])[None, :, :, None]
    labels, weights = torch.tensor([[[0], [1]]]), torch.ones(1, 2, 1)
    for sign, gamma in itertools.product((1, -1), (0.0, 0.5, 2.0)):
        value, slopes = gradient(one(name, head, gamma=gamma), sign * logits, labels, weights)
        assert value.isfinite()
        assert slopes.isfinite().all()
        assert value < 1e-5 if sign > 0 else value > 0.9


def test_cross_entropy_is_the_mean_over_pixels_of_what_torch_has() -> None:
    logits, labels, weights = batch()
    value = one("cross_entropy")(logits, labels, torch.ones_like(weights))
    assert value == pytest.approx(F.cross_entropy(logits, labels).item())
    expected = (weights * F.cross_entropy(logits, labels, reduction="none")).mean()
    assert one("cross_entropy")(logits, labels, weights) == pytest.approx(expected.item())
    assert one("cross_entropy")(logits, labels, 2 * weights) == pytest.approx(2 * expected.item())


def test_cross_entropy_by_hand() -> None:
    """Even odds cost ln 2; odds of 3 to 1 ln 4/3 or ln 4; the fourth pixel isn't counted."""
    logits = torch.tensor([[0.0, math.log(3), math.log(3), 9.0], [0.0, 0.0, 0.0, 0.0]])
    labels, weights = torch.tensor([[[0, 0, 1, IGNORED]]]), torch.tensor([[[1.0, 3, 0.5, 7]]])
    expected = (math.log(2) + 3 * math.log(4 / 3) + 0.5 * math.log(4)) / 3
    assert one("cross_entropy")(logits[None, :, None], labels, weights) == pytest.approx(expected)


def test_binary_cross_entropy_is_that_of_each_class() -> None:
    logits, labels, weights = batch()
    labels[0, 0, :3] = NOTHING
    labels[1, 1] = IGNORED
    total, pixels = 0.0, 0
    for i, y, x in itertools.product(range(2), range(7), range(6)):
        label = int(labels[i, y, x])
        pixels += label != IGNORED
        for k in range(3) if label != IGNORED else ():
            p = 1 / (1 + math.exp(-logits[i, k, y, x]))
            total -= float(weights[i, y, x]) * math.log(p if k == label else 1 - p) / 3
    found = one("binary_cross_entropy", "sigmoid", None)(logits, labels, weights)
    assert found == pytest.approx(total / pixels)


@pytest.mark.parametrize(("background", "taken"), [(0, False), (0, True), (None, False)])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("name", "jaccard"), [("dice", False), ("iou", True)])
def test_overlaps_are_monais(
    name: str, jaccard: bool, head: Head, background: int | None, taken: bool
) -> None:
    logits, labels, weights = batch()
    reference = DiceLoss(
        include_background=taken or background is None,
        to_onehot_y=True,
        softmax=head == "softmax",
        sigmoid=head == "sigmoid",
        jaccard=jaccard,
        batch=True,
    )
    found = one(name, head, background, background=taken)(logits, labels, weights)
    assert found == pytest.approx(reference(logits, labels[:, None]).item(), abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_focal_is_monais(head: Head, gamma: float) -> None:
    """MONAI's mean over a softmax's classes counts those that aren't true, which add nothing."""
    logits, labels, weights = batch()
    reference = FocalLoss(to_onehot_y=True, gamma=gamma, use_softmax=head == "softmax")
    expected = reference(logits, labels[:, None]).item() * (3 if head == "softmax" else 1)
    found = one("focal", head, gamma=gamma)(logits, labels, weights)
    assert found == pytest.approx(expected, rel=1e-6)


def test_dice_by_hand() -> None:
    """Probability ¾ on two pixels of three that are nuclei, ¼ on a third, over both images."""
    odds = torch.tensor([[[math.log(3), -math.log(3)]], [[math.log(3), -40.0]]])
    logits = torch.stack([torch.zeros_like(odds), odds], dim=1)
    labels = torch.tensor([[[1, 0]], [[1, 1]]])
    weights = torch.ones(2, 1, 2)
    p, t, both = 0.75 + 0.25 + 0.75, 3, 1.5
    assert one("dice")(logits, labels, weights) == pytest.approx(1 - 2 * both / (p + t), abs=1e-5)
    assert one("iou")(logits, labels, weights) == pytest.approx(1 - both / (p + t - both), abs=1e-5)


def test_a_class_that_is_nowhere_gives_no_term() -> None:
    """Class 2 is in neither truth nor prediction: what is left is the mean over class 1."""
    logits, labels, weights = batch(classes=2)
    wider = torch.cat([logits, torch.full_like(logits[:, :1], -math.inf)], dim=1)
    for name in ("dice", "iou"):
        expected = one(name)(logits, labels, weights)
        assert one(name)(wider, labels, weights) == pytest.approx(expected.item())


def test_a_class_that_is_only_predicted_costs_all() -> None:
    logits, weights = torch.zeros(1, 2, 8, 8), torch.ones(1, 8, 8)
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    assert one("dice")(logits, labels, weights) == pytest.approx(1, abs=1e-5)
    assert one("dice")(logits - 40 * torch.tensor([0.0, 1])[:, None, None], labels, weights) < 1e-5


def test_pixels_of_no_class_are_a_negative_of_every_class() -> None:
    logits, labels, weights = batch(classes=2)
    labels[:] = NOTHING
    for name in TERMS["sigmoid"]:
        sure = one(name, "sigmoid", None)
        assert sure(torch.full_like(logits, -40), labels, weights) < 1e-5
        _, slopes = gradient(sure, logits, labels, weights)
        assert (slopes >= 0).all()
        assert (slopes > 0).any()


@pytest.mark.parametrize("name", TERMS["softmax"])
def test_a_softmax_refuses_pixels_of_no_class(name: str) -> None:
    logits, labels, weights = batch()
    labels[1, 2, 3] = NOTHING
    with pytest.raises(RecipeError, match="a softmax can't learn: give the recipe a background"):
        one(name)(logits, labels, weights)


@pytest.mark.parametrize("label", [-1, 3, 17])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_labels_that_arent_classes_are_refused(head: Head, label: int) -> None:
    logits, labels, weights = batch()
    labels[1, 2, 3] = label
    with pytest.raises(RecipeError, match=f"label {label}, but the recipe has 3 classes"):
        one("dice", head)(logits, labels, weights)


@pytest.mark.parametrize(
    ("head", "name"), [("sigmoid", "cross_entropy"), ("softmax", "binary_cross_entropy")]
)
def test_a_term_that_isnt_for_the_head_is_refused(head: Head, name: str) -> None:
    with pytest.raises(RecipeError, match=f"'{name}' isn't for {head} heads; use "):
        one(name, head)


def test_terms_add_up_with_their_weights() -> None:
    logits, labels, weights = batch()
    terms = (LossTerm(name="cross_entropy", weight=0.3), LossTerm(name="dice", weight=2.0))
    both = build_loss(terms, 0, "softmax")(logits, labels, weights)
    parts = [one(term.name)(logits, labels, weights) for term in terms]
    assert both == pytest.approx((0.3 * parts[0] + 2 * parts[1]).item())


@pytest.mark.parametrize(("head", "name"), PAIRS)
def test_bfloat16_logits_are_computed_with_in_float32(head: Head, name: str) -> None:
    logits, labels, weights = batch()
    half = logits.bfloat16()
    value = one(name, head)(half, labels, weights)
    assert value.dtype == torch.float32
    assert value == one(name, head)(half.float(), labels, weights)


@given(st.lists(st.one_of(st.just(0.0), st.floats(1, 1e9)), min_size=1, max_size=6))
def test_classes_weigh_the_same_and_pixels_1_in_the_mean(amounts: list[float]) -> None:
    weights = class_balance(amounts)
    assert weights.dtype == np.float32
    assert weights.shape == (len(amounts),)
    pixels = np.array(amounts)
    there = pixels > 0
    if there.any():
        assert (weights * pixels).sum() / pixels.sum() == pytest.approx(1, rel=1e-5)
        np.testing.assert_allclose((weights * pixels)[there], pixels.sum() / there.sum(), rtol=1e-5)
        assert (weights[~there] == weights[there].max()).all()
    else:
        assert (weights == 1).all()

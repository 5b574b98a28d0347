"""Several models: the mean of their probabilities over the whole image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.exactness import network_of, segment_labels
from support.oracle import (
    MARGIN,
    balanced_model,
    textured,
    whole_image_logits,
    whole_image_views,
    write_png,
)

import wsi_unet
from wsi_unet.errors import OptionError, SignatureError
from wsi_unet.models import Model, Normalisation, UNetConfig
from wsi_unet.models.inference.ensemble import Ensemble

SHAPE = (603, 531)
VALID = network_of("valid", "transpose", 2, classes=3)
SAME = network_of("same", "bilinear", 3, classes=3, norm="batch")
ODD = network_of("same", "transpose", 1, classes=3, odd="zeros")
OTHER_SCALING = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.25))


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return textured(*SHAPE)


@pytest.fixture(scope="module")
def slide(image: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_png(tmp_path_factory.mktemp("ensembles") / "slide.png", image)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    result: NDArray[np.float64] = exponents / exponents.sum(axis=0)
    return result


def assert_decided_labels(labels: NDArray[np.uint8], expected: NDArray[np.float64]) -> None:
    ordered = np.sort(expected, axis=0)
    decided = ordered[-1] - ordered[-2] > MARGIN
    assert decided.mean() > 0.998
    assert np.bincount(expected.argmax(0).ravel()).min() > 0.05 * labels.size
    assert np.array_equal(labels[decided], expected.argmax(0)[decided])


def many(folder: Path, *names: str) -> Any:
    return [folder / name for name in names]


def test_the_mean_of_networks_that_differ_in_all_else(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    """The models differ in padding, depth, border, edge, normalisation and channel order."""
    _, valid = balanced_model(VALID, image, tmp_path / "valid", name="first")
    bgr = np.ascontiguousarray(image[..., ::-1])
    _, same = balanced_model(
        SAME, bgr, tmp_path / "same", seed=1, name="second", channel_order="bgr"
    )
    _, odd = balanced_model(
        ODD, image, tmp_path / "odd", seed=2, name="third", normalisation=OTHER_SCALING
    )
    labels = segment_labels(
        slide,
        tmp_path / "out",
        many(tmp_path, "valid", "same", "odd"),
        outputs=("labels", "probabilities"),
    )
    said = [
        softmax(whole_image_logits(valid, VALID, image)),
        softmax(whole_image_logits(same, SAME, bgr)),
        softmax(whole_image_logits(odd, ODD, image, OTHER_SCALING.mean, OTHER_SCALING.std)),
    ]
    expected = np.mean(said, axis=0)
    assert_decided_labels(labels, expected)
    opened = wsi_unet.open_probabilities(tmp_path / "out")
    assert np.abs(opened.values / 255 - expected).max() <= 0.5 / 255 + 1e-4
    assert all(np.abs(one - expected).max() > 0.1 for one in said)
    provenance = opened.attrs["provenance"]
    assert provenance["exactness"] == "exact"
    assert opened.name == provenance["model"]["name"] == "first.ensemble"
    names = [one["spec"]["name"] for one in provenance["model"]["mean_of"]]
    assert names == ["first", "second", "third"]
    record = json.loads((tmp_path / "out/.wsi_unet/first.ensemble/run.json").read_text())
    members = record["parameters"]["model"]["members"]
    assert [Path(one["path"]).name for one in members] == ["valid", "same", "odd"]
    assert len({one["sha256"] for one in members}) == 3


def test_the_mean_over_models_and_views(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    networks = []
    for name, config in (("valid", VALID), ("odd", ODD)):
        _, network = balanced_model(config, image, tmp_path / name, name=name)
        networks.append((network, config))
    labels = segment_labels(slide, tmp_path / "out", many(tmp_path, "valid", "odd"), tta="d4")
    views = [whole_image_views(*one, image, quarters=(0, 1, 2, 3)) for one in networks]
    assert_decided_labels(labels, np.mean(views, axis=0))


def test_classes_that_overlap_are_averaged_too(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    said = []
    for seed, config in enumerate((VALID, SAME)):
        _, network = balanced_model(
            config, image, tmp_path / str(seed), seed=seed, head="sigmoid", background=None
        )
        said.append(1 / (1 + np.exp(-whole_image_logits(network, config, image).astype(float))))
    report = wsi_unet.segment(
        slide, tmp_path / "out", many(tmp_path, "0", "1"), tissue="none", precision="float32",
        device="cpu", block=512, tile=128,
    )  # fmt: skip
    expected = np.mean(said, axis=0)
    for area, probability in zip(report.classes, expected, strict=True):
        assert area.group == f"random.ensemble.{area.name}"
        labels = wsi_unet.open_labels(tmp_path / "out", area.group).values
        decided = np.abs(probability - 0.5) > MARGIN
        assert np.array_equal(labels[decided], (probability > 0.5)[decided])
        assert 0.05 < labels.mean() < 0.95


def test_members_are_part_of_what_a_run_is(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    for seed, name in enumerate("abc"):
        balanced_model(ODD, image, tmp_path / name, seed=seed, name=name)

    def run(*names: str) -> wsi_unet.Report:
        return wsi_unet.segment(
            slide, tmp_path / "out", many(tmp_path, *names), tissue="none", device="cpu"
        )

    assert run("a", "b").state == "finished"
    assert run("a", "b").blocks.resumed == 1
    with pytest.raises(SignatureError, match="computed with another model"):
        run("a", "c")
    assert run("a").label == "a"  # a result of its own beside
    assert [one.label for one in wsi_unet.run_status(tmp_path / "out")][:2] == ["a.ensemble", "a"]
    with pytest.raises(OptionError, match="there is no model: give `model` one, or several"):
        run()


CHANGES: list[tuple[dict[str, Any], str]] = [
    (
        {"background": "class-1"},
        r"from one in its background \(class-1 instead of class-0\)",
    ),
    ({"head": "sigmoid", "background": None}, "in its background"),
    ({"mpp": 0.5}, r"from one in its pixel size \(0.5 instead of none\)"),
    (
        {"classes": [{"name": name, "color": "#000000"} for name in ("class-0", "b", "class-2")]},
        r"in its classes \(class-0, b, class-2 instead of",
    ),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_models_that_answer_another_question_are_refused(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    balanced_model(ODD, image, tmp_path / "one", name="one")
    balanced_model(ODD, image, tmp_path / "other", name="other", **changes)
    with pytest.raises(OptionError, match=message) as caught:
        wsi_unet.segment(slide, tmp_path / "out", many(tmp_path, "one", "other"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def model_of(config: UNetConfig, image: NDArray[np.uint8], path: Path, **changes: Any) -> Model:
    return balanced_model(config, image, path, name=path.name, **changes)[0]


def test_an_ensemble_is_approximate_if_a_member_is(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    exact = model_of(ODD, image, tmp_path / "exact")
    instance = network_of("same", "transpose", 1, classes=3, norm="instance")
    vague = model_of(instance, image, tmp_path / "vague", window=128)
    ensemble = Ensemble((exact, vague))
    assert ensemble.exactness == "approximate"
    assert ensemble.inexact_because == "vague: its result depends on all of the window"
    assert ensemble.tile == Ensemble((vague,)).tile == 64
    report = wsi_unet.segment(
        slide, tmp_path / "out", many(tmp_path, "exact", "vague"), tissue="none", device="cpu",
        precision="float32", block=512,
    )  # fmt: skip
    assert (report.exactness, report.parameters["tile"]) == ("approximate", 64)
    (status, _) = wsi_unet.run_status(tmp_path / "out")
    assert status.exactness == "approximate"
    assert status.inexact_because == report.inexact_because == ensemble.inexact_because


def test_windows_of_two_sizes_do_not_go_together(image: NDArray[np.uint8], tmp_path: Path) -> None:
    instance = network_of("same", "transpose", 1, classes=3, norm="instance")
    small = model_of(instance, image, tmp_path / "small", window=64)
    large = model_of(instance, image, tmp_path / "large", window=256)
    with pytest.raises(OptionError, match=r"windows of one size only.*cores of 32, 128 px"):
        Ensemble((small, large))


def test_costs_add_up(image: NDArray[np.uint8], tmp_path: Path) -> None:
    models = [model_of(config, image, tmp_path / str(n)) for n, config in enumerate((VALID, SAME))]
    alone = [Ensemble((model,)) for model in models]
    together = Ensemble(tuple(models))
    assert together.flops(256) == sum(one.flops(256) for one in alone)
    sizes = [one.memory(256, "float32", probabilities=False) for one in alone]
    assert together.memory(256, "float32", probabilities=False) > sum(sizes)
    assert together.border().period == 8
    for border in (one.border() for one in alone):
        assert together.border().before >= border.before
        assert together.border().after >= border.after
    assert together.sha256 not in {one.sha256 for one in alone}
    assert together.sha256 != Ensemble(tuple(reversed(models))).sha256

"""`wsi-unet model`: checkpoints become models, and either can be inspected."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from models.reference_networks import JvanVugt, Milesial, randomise, with_norm
from support.oracle import textured, write_png

import wsi_unet
from wsi_unet.models.importing.imported_models import cache_folder
from wsi_unet_cli.main import cli
from wsi_unet_cli.model.command import model


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def document(*arguments: str | Path) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Write a milesial checkpoint: bilinear, three classes."""
    path = tmp_path / "my unet.pth"
    torch.save(randomise(Milesial(3, 3, 4, bilinear=True)).state_dict(), path)
    return path


@pytest.fixture
def unpadded(tmp_path: Path) -> Path:
    """Write a jvanvugt checkpoint, whose padding can't be read off its keys."""
    path = tmp_path / "jvanvugt.pth"
    network = JvanVugt(3, 2, 4, padding=False, norm=True, upsample=False)
    torch.save(randomise(network).state_dict(), path)
    return path


@pytest.mark.parametrize("command", list(model.commands))
def test_each_command_explains_itself_with_examples_that_parse(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = run("model", command, "--help").stdout.split("Examples:")[1]
    examples = re.findall(rf"wsi-unet model {command} (.*)", text)
    assert examples
    monkeypatch.setattr(model.commands[command], "callback", lambda **_: None)
    for arguments in examples:
        done = run("model", command, *arguments.split())
        assert done.exit_code == 0, done.output


def test_an_imported_model_has_the_given_properties(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "imported"
    options = "--classes stroma,background,gland --mpp 0.5 --scale imagenet --channels bgr"
    options += " --license MIT --interpolation global --name glands"
    found = document("model", "import", checkpoint, "-o", target, *options.split())
    assert found["path"] == str(target)
    loaded = wsi_unet.load_model(target)
    assert loaded.sha256 == found["sha256"]
    spec = loaded.spec
    assert [item.name for item in spec.classes] == ["stroma", "background", "gland"]
    assert len({item.color for item in spec.classes}) == 3
    assert (spec.background, spec.mpp, spec.license, spec.name) == (
        "background",
        0.5,
        "MIT",
        "glands",
    )
    assert spec.channel_order == "bgr"
    assert spec.normalisation.mean == (0.406, 0.456, 0.485)
    assert (spec.window, spec.exactness) == (None, "exact")


def test_the_text_says_what_matters(checkpoint: Path, tmp_path: Path) -> None:
    done = run("model", "import", checkpoint, "-o", tmp_path / "imported")
    assert done.exit_code == 0, done.output
    for words in (
        "my-unet",
        "milesial/Pytorch-UNet",
        "class-0, class-1, class-2",
        "window 512 px",
        "approximate (its interpolation depends on the window's size)",
        "assumed",
        "bilinear upsampling with aligned corners",
        "intensities from 0 to 1",
        "class-0 as background",
    ):
        assert words in done.stdout


def test_a_model_is_replaced_only_with_overwrite(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "imported"
    assert run("model", "import", checkpoint, "-o", target).exit_code == 0
    done = run("model", "import", checkpoint, "-o", target)
    assert done.exit_code == 2
    assert "exists; choose another path, or give --overwrite" in done.stderr
    assert run("model", "import", checkpoint, "-o", target, "--overwrite").exit_code == 0


def test_missing_options_are_named_in_one_line(unpadded: Path, tmp_path: Path) -> None:
    done = run("model", "import", unpadded, "-o", tmp_path / "imported")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "give --padding (valid or same) to wsi-unet model import" in done.stderr
    assert not (tmp_path / "imported").exists()
    done = run("model", "import", unpadded, "-o", tmp_path / "imported", "--padding", "valid")
    assert done.exit_code == 0, done.stderr


def test_a_norm_without_running_statistics_is_asked_for(tmp_path: Path) -> None:
    network = with_norm(lambda: Milesial(3, 2, 4, bilinear=False), "group:4")
    torch.save(network.state_dict(), tmp_path / "groups.pth")
    options = ("model", "import", tmp_path / "groups.pth", "-o", tmp_path / "imported")
    done = run(*options)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "give --norm (instance or batch or group:G) to wsi-unet model import" in done.stderr
    done = run(*options, "--norm", "group:3")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "--norm group:3: " in done.stderr
    done = run(*options, "--norm", "group:4")
    assert done.exit_code == 0, done.stderr
    assert "norm group:4" in done.stdout
    assert "approximate (its result depends on all of the window)" in done.stdout


def test_several_networks_are_named_and_one_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    plain = randomise(Milesial(3, 2, 4, bilinear=False)).state_dict()
    ema = randomise(Milesial(3, 2, 4, bilinear=False), seed=1).state_dict()
    torch.save({"model": plain, "ema": ema, "epoch": 9}, path)
    for command in ("import", "inspect"):
        done = run("model", command, path)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert "model (milesial), ema (milesial); give --entry model or --entry ema" in done.stderr
    options = ("model", "import", path, "-o", tmp_path / "imported", "--entry", "ema")
    assert "left out of the file, as not part of the network: model" in run(*options).stdout
    shown = document("model", "inspect", path, "--entry", "ema")
    assert shown["spec"] == document("model", "inspect", tmp_path / "imported")["spec"]
    weights = wsi_unet.load_model(tmp_path / "imported").build().state_dict()
    assert torch.equal(weights["head.bias"], ema["outc.conv.bias"])


def test_inspect_names_the_needed_options(unpadded: Path) -> None:
    found = document("model", "inspect", unpadded)
    assert found["must_be_told"] == {"--padding": ["valid", "same"]}
    assert found["family"] == "jvanvugt"
    assert "--padding valid|same" in run("model", "inspect", unpadded).stdout


def test_a_model_and_its_checkpoint_look_alike(checkpoint: Path, tmp_path: Path) -> None:
    run("model", "import", checkpoint, "-o", tmp_path / "imported")
    before = document("model", "inspect", checkpoint)
    after = document("model", "inspect", tmp_path / "imported")
    assert before["summary"] == after["summary"]
    assert before["spec"] == after["spec"]
    assert (before["family"], before["must_be_told"]) == ("milesial", {})


def test_what_is_assumed_stays_with_the_model(checkpoint: Path, tmp_path: Path) -> None:
    imported = document("model", "import", checkpoint, "-o", tmp_path / "imported")
    assert "bilinear upsampling with aligned corners" in imported["spec"]["assumed"]
    for source in (checkpoint, tmp_path / "imported"):
        assert document("model", "inspect", source)["spec"] == imported["spec"]
        assert "assumed" in run("model", "inspect", source).stdout


def test_a_width_that_explicit_channels_overrule_is_not_shown(checkpoint: Path) -> None:
    explicit = document("model", "inspect", checkpoint)["spec"]["architecture"]
    assert explicit["channels"] is not None
    assert "base_width" not in explicit
    by_rule = document("model", "inspect", "nuclei-he")["spec"]["architecture"]
    assert by_rule["base_width"] == 16


def test_models_points_from_a_checkpoint_to_what_shows_it(checkpoint: Path) -> None:
    done = run("models", checkpoint)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"wsi-unet model inspect {checkpoint}" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--padding", "same"],
        ["--norm", "none"],
        ["--entry", "model"],
        ["--activation", "relu"],
        ["--interpolation", "global"],
        ["--family", "milesial"],
    ],
)
def test_options_about_weights_are_refused_for_a_program(
    options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07")
    done = run("model", "import", tmp_path / "a.onnx", *options)
    assert done.exit_code == 2
    assert f"{options[0]}: " in done.stderr
    assert "is run as it is" in done.stderr


def test_a_bundled_model_can_be_looked_at() -> None:
    summary = document("model", "inspect", "nuclei-he")["summary"]
    assert (summary["before"], summary["after"], summary["shrink"], summary["period"]) == (
        44,
        48,
        44,
        8,
    )
    assert summary["exactness"] == "exact"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "a,b"], "2 names for a network with 3 outputs"),
        (["--classes", "a,,b"], "an empty name"),
        (["--classes", "a,a,b"], "'a' is there 2 times"),
        (["--background", "liver"], "'liver' is none of the classes"),
        (["--thresholds", "0.5,0.5,0.5"], "only a sigmoid head has them"),
        (["--thresholds", "1.5"], "isn't a list of numbers from 0 to 1"),
        (["--head", "sigmoid", "--thresholds", "0.5"], "1 number for 3 classes"),
        (["--head", "sigmoid", "--background", "class-0"], r"leave it out \(--background none\)"),
        (["--head", "sigmoid", "--classes", "background,a,b"], "rename it$"),
        (["--background", "none", "--classes", "background,a,b"], "--background background$"),
        (["--padding", "valid"], "--padding: .* leaves no choice"),
        (["--norm", "instance"], "--norm: .* leaves no choice"),
        (["--norm", "layer"], "--norm: 'layer' is none of none, instance, batch, group:G"),
        (["--entry", "ema"], "--entry: .* has no network of a known family at 'ema', but at \\."),
        (["--scale", "zscore"], "'zscore' is none of"),
        (["--scale", "0.5/0.2"], "1 number for 3 channels"),
        (["--channels", "gray"], "channel order 'gray' has 1"),
        (["--activation", "mish"], "none of relu"),
        (["--family", "vgg"], "none of auto, wsi-unet, milesial"),
        (["--family", "jvanvugt"], "the nearest is jvanvugt|of no known family"),
        (["--interpolation", "global", "--window", "512"], "leave out --window"),
        (["--window", "17"], "leaves nothing between its borders"),
        (["--mpp", "1000"], "mpp"),
        (["--name", "a/b"], "name"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    done = run("model", "import", checkpoint, "-o", tmp_path / "imported", *options)
    assert done.exit_code == 2, done.output
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "imported").exists()


def test_a_checkpoint_segments_directly_and_is_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_UNET_CACHE", str(tmp_path / "cache"))
    slide = write_png(tmp_path / "slide.png", textured(300, 400))
    options = ["--tissue", "none", "--image", "none", "--block", "512", "-q"]
    first, second = tmp_path / "first.ome.zarr", tmp_path / "second.ome.zarr"
    for output in (first, second):
        done = run("segment", slide, "-m", checkpoint, "-o", output, *options)
        assert done.exit_code == 0, done.output
    (kept,) = cache_folder().glob("*/*")
    assert kept.name == "my-unet"
    np.testing.assert_array_equal(
        wsi_unet.open_labels(first).values, wsi_unet.open_labels(second).values
    )


def test_a_checkpoint_that_needs_options_is_not_segmented_with(
    unpadded: Path, tmp_path: Path
) -> None:
    slide = write_png(tmp_path / "slide.png", textured(64, 64))
    done = run("segment", slide, "-m", unpadded, "-o", tmp_path / "out.ome.zarr", "-q")
    assert done.exit_code == 2
    assert "give --padding (valid or same) to wsi-unet model import" in done.stderr

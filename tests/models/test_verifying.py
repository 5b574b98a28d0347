"""`wsi-unet model verify`: right models pass, and each wrong claim is detected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from models.conftest import MakeModel
from support.programs import Hourglass, alive, spec_for, write_onnx

from wsi_unet.models import Model, save_model
from wsi_unet.models.architectures.program import ProgramConfig
from wsi_unet.models.probing.verify import Verification, verify_model
from wsi_unet.models.program_file import ProgramFile
from wsi_unet.models.saving import save_program
from wsi_unet.segmentation.sample_pixels import make_tissue_sample, read_tissue_sample
from wsi_unet_cli.main import cli


def hourglass(tmp_path: Path, **claims: Any) -> Model:
    """Write an ONNX program whose spec makes the given claims."""
    torch.set_num_threads(1)
    network = alive(Hourglass())
    assert isinstance(network, Hourglass)
    file = ProgramFile(write_onnx(network, tmp_path / "hourglass.onnx"), "onnx")
    true: dict[str, Any] = {
        "kind": "onnx",
        "in_channels": 3,
        "classes": 2,
        "period": 2,
        "before": 6,
        "after": 6,
        "local": True,
        "sized": False,
    }
    spec = spec_for(ProgramConfig.model_validate(true | claims))
    return save_program(file, spec, tmp_path / "model")


def verdicts(found: Verification) -> dict[str, bool | None]:
    return {check.name: check.holds for check in found.checks}


@pytest.mark.parametrize(
    ("fields", "border"),
    [
        ({"padding": "valid"}, "20 px before, 21 px after a core"),
        ({"padding": "same"}, "22 px before, 22 px after a core"),
        ({"padding": "same", "upsampling": "bilinear"}, "26 px before, 26 px after a core"),
        (
            {"padding": "same", "upsampling": "bilinear", "align_corners": True},
            "26 px before, 26 px after a core",
        ),
    ],
)
def test_our_own_networks_are_what_they_say(
    make_model: MakeModel, fields: dict[str, Any], border: str
) -> None:
    found = verify_model(make_model(**fields), make_tissue_sample)
    assert found.holds
    assert found.exactness == "exact"
    measured = {check.name: check.measured for check in found.checks}
    assert measured["border"] == border
    assert verdicts(found)["tiling"] is True
    assert verdicts(found)["tiles of pixels"] is True
    assert "bfloat16" in measured


def test_an_approximate_one_is_measured_too(make_model: MakeModel) -> None:
    model = make_model({"window": 128}, padding="same", norm="instance")
    found = verify_model(model, make_tissue_sample)
    assert found.holds
    assert found.exactness == "approximate"
    tiling = next(check for check in found.checks if check.name == "tiling")
    assert tiling.holds is None
    assert float(tiling.measured.split()[2]) > 1e-4


def test_a_program_is_what_was_measured(tmp_path: Path) -> None:
    found = verify_model(hourglass(tmp_path), make_tissue_sample)
    assert found.holds
    assert set(verdicts(found)) == {"output", "border", "tiling", "tiles of pixels"}


@pytest.mark.parametrize(
    ("claims", "wrong"),
    [
        ({"before": 4}, "border"),
        ({"after": 4}, "border"),
        ({"period": 1, "before": 5, "after": 5}, "output"),
        ({"classes": 3}, "output"),
        ({"shrink": 2, "before": 8, "after": 8}, "output"),
    ],
)
def test_each_wrong_claim_is_found_out(tmp_path: Path, claims: dict[str, Any], wrong: str) -> None:
    found = verify_model(hourglass(tmp_path, **claims), make_tissue_sample)
    assert not found.holds
    assert verdicts(found)[wrong] is False


def test_the_command(tmp_path: Path, example_slide_path: Path) -> None:
    hourglass(tmp_path)
    command = ["model", "verify", str(tmp_path / "model")]
    done = CliRunner().invoke(cli, [*command, "--slide", str(example_slide_path), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["holds"]
    assert {check["name"] for check in document["checks"]} >= {"border", "tiling"}
    edited = tmp_path / "model" / "model.json"
    edited.write_text(edited.read_text().replace('"before": 6', '"before": 0'))
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 1
    assert "WRONG" in done.stdout
    assert "is NOT as declared" in done.stdout


def test_pixels_come_from_the_tissue(example_slide_path: Path, make_model: MakeModel) -> None:
    pixels = read_tissue_sample(str(example_slide_path), make_model().spec, 300)
    assert pixels.shape == (300, 300, 3)
    assert pixels.std() > 10
    assert make_tissue_sample(64).shape == (64, 64, 3)


def test_a_saved_model_of_weights_is_not_changed_by_verifying(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model(padding="same", depth=1)
    verify_model(model, make_tissue_sample)
    assert save_model(model.build(), model.spec, tmp_path / "again").sha256 == model.sha256

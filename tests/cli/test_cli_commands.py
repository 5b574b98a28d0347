"""The commands that only read: info, models, doctor, overlay, status; on real files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result
from PIL import Image
from support.labelled import write_store

from wsi_unet_cli.main import cli


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_info_says_what_the_slide_is(example_slide_path: Path) -> None:
    done = run("info", example_slide_path)
    assert done.exit_code == 0, done.output
    for part in ("CMU-1-Small-Region.svs", "aperio", "2220 × 2967 px (1.11 × 1.48 mm)",
                 "0.499 µm/px", "JPEG"):  # fmt: skip
        assert part in done.stdout
    assert "aperio.AppMag" not in done.stdout
    assert "aperio.AppMag" in run("info", "-v", example_slide_path).stdout


def test_info_lists_the_images_of_a_file_and_what_is_doubtful(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for rows in (50, 90):
            writer.write(np.zeros((rows, 70, 3), np.uint8), photometric="rgb", metadata=None)
    done = run("info", path)
    assert done.exit_code == 2
    assert "0 (70 x 50 px), 1 (70 x 90 px); choose one with --series" in done.stderr
    shown = run("info", path, "--series", "1")
    assert shown.exit_code == 0
    assert "series" in shown.stdout
    assert "70 × 50 px" in shown.stdout
    document = json.loads(run("info", path, "--series", "0", "--json").stdout)
    assert document["height"] == 50
    assert [series["height"] for series in document["series"]] == [50, 90]


def test_info_as_json(example_slide_path: Path) -> None:
    done = run("info", "--json", example_slide_path)
    document = json.loads(done.stdout)
    assert (document["width"], document["height"]) == (2220, 2967)
    assert document["mpp"] == {"x": 0.499, "y": 0.499}
    assert document["levels"] == [
        {"width": 2220, "height": 2967, "downsample": {"x": 1.0, "y": 1.0}}
    ]
    assert document["properties"]["aperio.AppMag"] == "20"


@pytest.mark.parametrize("content", [None, b"", b"not a slide\n" * 80])
def test_info_refuses_other_files_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.svs"
    if content is not None:
        path.write_bytes(content)
    done = run("info", path)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "x.svs" in done.stderr


def test_models_lists_the_bundled_one_with_its_dice() -> None:
    done = run("models")
    assert done.exit_code == 0, done.output
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("nuclei-he"))
    assert "nuclei" in row
    (listed,) = (m for m in json.loads(run("models", "--json").stdout)["models"])
    assert listed["bundled"]
    assert listed["bytes"] <= 2 * 2**20
    assert f"{listed['metrics']['held_out']['dice']:.3f}" in row


def test_models_shows_a_given_ones_card(tmp_path: Path) -> None:
    from wsi_unet.models import ModelClass, ModelSpec, Normalisation, UNetConfig

    spec = ModelSpec(
        name="mine",
        architecture=UNetConfig(depth=1, base_width=2),
        classes=(ModelClass(name="rest", color="#000000"), ModelClass(name="it", color="#ff0000")),
        background="rest",
        mpp=None,
        normalisation=Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        description="Ours.",
        metrics={"dice": 0.75, "by_set": {"a": 0.5, "b": 1}},
    )
    (tmp_path / "model.json").write_text(spec.model_dump_json())
    card = run("models", tmp_path, "-v")
    assert card.exit_code == 0, card.output
    for part in ("mine", "Ours.", str(tmp_path), "not stated", "a 0.5, b 1"):
        assert part in card.stdout
    row = run("models", tmp_path).stdout.splitlines()[1]
    assert row.split()[:5] == ["mine", "rest,", "it", "any", "0.750"]


def test_models_refuses_other_files(tmp_path: Path) -> None:
    done = run("models", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_doctor_names_versions_devices_and_its_choice() -> None:
    document = json.loads(run("doctor", "--json").stdout)
    assert document["packages"]["torch"]
    assert document["devices"][-1]["name"] == "cpu"
    assert document["devices"][-1]["matmul_flops"]["float32"] > 1e8
    chosen = document["would_use"]
    assert chosen["device"] == document["devices"][0]["name"]
    text = run("doctor")
    assert text.exit_code == 0
    assert "a run would use" in text.stdout


def test_status_refuses_other_folders(tmp_path: Path, example_slide_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path, example_slide_path):
        done = run("status", path)
        assert done.exit_code == 2, path
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_overlay_refuses_other_folders(tmp_path: Path) -> None:
    done = run("overlay", tmp_path / "missing", "-o", tmp_path / "x.png")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_overlay_draws_a_part_of_the_slide_with_the_groups_that_are_named(tmp_path: Path) -> None:
    for name, color in (("a", "#ff0000"), ("b", "#00ff00"), ("c", "#0000ff")):
        write_store(tmp_path / "out", np.ones((300, 400), np.uint8), name=name, color=color)
    part = ("--region", "300,200,500,500", "-o", tmp_path / "x.png")
    done = run("overlay", tmp_path / "out", *part, "--label", "a", "--label", "c")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "x.png") as picture:
        colors = {color for _, color in picture.getcolors(1 << 16) or []}
        assert picture.width < 400
    assert {(255, 0, 0), (0, 0, 255)} <= colors, "both are in the legend"
    assert (0, 255, 0) not in colors
    done = run("overlay", tmp_path / "out", "--region", "400,0,5,5", "-o", tmp_path / "y.png")
    assert done.exit_code == 2
    assert "--region 400,0,5,5 lies outside the slide, which is 400 x 300 px" in done.stderr
    assert not (tmp_path / "y.png").exists()

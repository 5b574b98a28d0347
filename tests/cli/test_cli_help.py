"""Every command explains itself, and wrong arguments are usage errors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from wsi_unet.segmentation.planning.options import PRECISIONS
from wsi_unet_cli.common.options import TTAS
from wsi_unet_cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "segment",
    "info",
    "status",
    "measure",
    "overlay",
    "export",
    "evaluate",
    "train",
    "models",
    "doctor",
)


def test_help_lists_the_commands_in_the_order_of_use() -> None:
    done = CliRunner().invoke(cli, ["--help"])
    assert done.exit_code == 0
    assert "For research, not for diagnosis." in done.stdout
    listed = re.findall(r"^  ([a-z]+)  +\S", done.stdout, flags=re.MULTILINE)
    assert listed == [
        "segment",
        "info",
        "status",
        "objects",
        "measure",
        "overlay",
        "view",
        "export",
        "evaluate",
        "train",
        "models",
        "model",
        "doctor",
    ]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_each_command_has_examples(command: str, flag: str) -> None:
    done = CliRunner().invoke(cli, [command, flag])
    assert done.exit_code == 0
    assert f"wsi-unet {command}" in done.stdout.split("Examples:")[1]
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_in_the_help_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = CliRunner().invoke(cli, [command, "--help"]).stdout.split("Examples:")[1]
    examples = re.findall(r"wsi-unet (\S+)(.*)", text)
    assert examples
    parsed = cli.commands[command]
    monkeypatch.setattr(parsed, "callback", lambda **_: None)
    for name, arguments in examples:
        assert name == command
        done = CliRunner().invoke(cli, [name, *arguments.split()])
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment"], "Missing argument"),
        (["segmnt"], "No such command"),
        (["segment", "x.svs", "--region", "1,2,3"], "not four whole numbers"),
        (["segment", "x.svs", "--region", "1,2,3.5,4"], "not four whole numbers"),
        (["segment", "x.svs", "--region", "-1,2,3,4"], "not four whole numbers"),
        (["segment", "x.svs", "--region", "1,2,0,4"], "empty"),
        (["segment", "x.svs", "--block", "1000"], "not 512 times a power of two"),
        (["segment", "x.svs", "--block", "1536"], "not 512 times a power of two"),
        (["segment", "x.svs", "--block", "256"], "not 512 times a power of two"),
        (["segment", "x.svs", "--block", "0"], "not 512 times a power of two"),
        (["segment", "x.svs", "--block", "-512"], "not 512 times a power of two"),
        (["segment", "x.svs", "--block", "big"], "not a valid integer"),
        (["segment", "x.svs", "--tile", "0"], "neither 'auto' nor a number"),
        (["segment", "x.svs", "--tile", "large"], "neither 'auto' nor a number"),
        (["segment", "x.svs", "--outputs", "labels,polygons"], "'polygons' is none of"),
        (["segment", "x.svs", "--outputs", "probabilities"], "Labels are always written"),
        (["segment", "x.svs", "--outputs", ""], "is none of"),
        (["segment", "x.svs", "--image", "some"], "is not one of"),
        (["segment", "x.svs", "--precision", "float8"], "is not one of"),
        (["segment", "x.svs", "--device", "gpu"], "is none of 'auto', 'cpu'"),
        (["segment", "x.svs", "--device", "cuda:"], "is none of 'auto', 'cpu'"),
        (["segment", "x.svs", "--device", "cuda:0\n"], "is none of 'auto', 'cpu'"),
        (["segment", "x.svs", "--mpp", "0"], "is not in the range"),
        (
            ["segment", "x.svs", "--workers", "0"],
            "neither a number of processes above 0 nor 'auto'",
        ),
        (["segment", "x.svs", "--max-retries", "-1"], "is not in the range"),
        (["segment", "x.svs", "--workers", "2", "--scheduler", "tcp://a:1"], "not both"),
        (["segment", "a/x.svs", "b/x.ndpi"], "both be written to x.ome.zarr"),
        (["segment", "x.svs", "--reader", "vips"], "is not one of"),
        (["segment", "x.svs", "--tta", "all"], "is not one of"),
        (["segment", "x.svs", "-m", "a", "-m", "b"], "add --ensemble mean"),
        (["info"], "Missing argument"),
        (["info", "a.svs", "b.svs"], "unexpected extra argument"),
        (["status"], "Missing argument"),
        (["overlay", "x.ome.zarr", "--size", "3"], "is not in the range"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_every_precision_and_view_is_offered_and_described() -> None:
    from wsi_unet.models.number_types import Precision
    from wsi_unet_cli.common.reports import VIEWS_IN_WORDS

    assert set(PRECISIONS) == {"auto", *get_args(Precision)}
    assert set(TTAS) == {*VIEWS_IN_WORDS}


def test_the_reference_in_the_docs_is_what_the_commands_say() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_cli.py"], capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / "reference" / "cli.md").read_text() == made.stdout, "run `make docs`"

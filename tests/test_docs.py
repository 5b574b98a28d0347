"""What the documentation shows works: commands parse, links lead somewhere, the card is valid."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import wsi_unet
from wsi_unet.models import ModelSpec
from wsi_unet_cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "examples" / "README.md"])
TARGETS = set(
    re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
)


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language on a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_can_be_given(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in cli.commands.values():
        below = command.commands.values() if isinstance(command, click.Group) else ()
        for one in (command, *below):
            monkeypatch.setattr(one, "callback", lambda **_: None)
    for line in "".join(blocks(page, "sh")).replace("\\\n", "").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["wsi-unet"]:
            done = CliRunner().invoke(cli, words[1:])
            assert done.exit_code == 0, f"{line}: {done.output}"
        elif words[:1] == ["make"]:
            targets = [word for word in words[1:] if "=" not in word]
            assert set(targets) <= TARGETS, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_use_public_names(page: Path) -> None:
    for code in blocks(page, "python"):
        tree = ast.parse(code)
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "wsi_unet"
        }
        assert used <= set(wsi_unet.__all__)


def test_the_model_card_in_the_docs_is_valid() -> None:
    (card,) = blocks(ROOT / "docs" / "model-format.md", "json")
    spec = ModelSpec.model_validate_json(card)
    assert [label.name for label in spec.labels] == ["background", "nuclei"]


def test_the_readme_names_every_verb() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    verbs = {name for name in wsi_unet.__all__ if name.islower() and name != "__version__"}
    assert not [verb for verb in verbs if f"`{verb}`" not in readme]

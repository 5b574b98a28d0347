"""The documentation: its commands run or parse, links lead somewhere, names exist."""

from __future__ import annotations

import ast
import csv
import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner

import wsi_unet
from wsi_unet.models import ModelSpec
from wsi_unet_cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "examples" / "README.md"]
)
SLIDE = ROOT / "examples" / "CMU-1-Small-Region.svs"
HOW_DO_I = ROOT / "docs" / "how-do-i.md"
FIRST_SLIDE = ROOT / "docs" / "tutorials" / "first-slide.md"
TRAIN = ROOT / "docs" / "tutorials" / "train-a-model.md"

# Why a command of a page whose commands are run is only parsed.
ONLY_PARSED = {
    "s3://": "wants a bucket",
    "--workers": "starts processes, which the tests of clusters do",
    "--scheduler": "wants a cluster",
    "recipe.toml": "is the recipe of the tutorial, which runs",
    "--tta": "takes four times as long; the tests of segmentation run it",
    "edited": "is corrected by hand in QuPath; the tests of corrections do it",
    "doctor": "measures the machine for seconds; the command line's tests run it",
    "view": "serves until Ctrl-C; the viewer's own tests run it",
    "verify": "measures a network for seconds; the command line's tests run it",
}
# What makes a command that is shown with real figures short enough for a test.
SHORTER = {"train": ("--set", "running.iterations=2", "--workers", "0")}
# Programs of others; the files and extras that their commands name must exist.
OTHER_PROGRAMS = {
    ".",
    "QuPath",
    "dask",
    "openssl",
    "pip",
    "pre-commit",
    "pytest",
    "sbatch",
    "snakemake",
    "ssh",
}


class Command(NamedTuple):
    """A shown command."""

    page: Path
    words: list[str]
    redirected: str | None  # the file that its output goes to

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {shlex.join(self.words)}"


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language on a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page in their order, without comments."""
    for line in "".join(blocks(page, "sh")).replace("\\\n", "").splitlines():
        words = shlex.split(line, comments=True)
        redirected = words.index(">") if ">" in words else len(words)
        if words:
            yield Command(page, words[:redirected], "".join(words[redirected + 1 :]) or None)


def is_run(command: Command) -> bool:
    """Return whether a test runs a command, not only parses it."""
    return (
        command.page in (ROOT / "README.md", HOW_DO_I, FIRST_SLIDE, TRAIN)
        and command.words[0] == "wsi-unet"
        and not any(part in word for part in ONLY_PARSED for word in command.words)
    )


# ---- every command is run, or parsed ----


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in cli.commands.values():
        below = command.commands.values() if isinstance(command, click.Group) else ()
        for one in (command, *below):
            monkeypatch.setattr(one, "callback", lambda **_: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.pem").touch()  # Dask's parser wants to see these
    (tmp_path / "certificate.pem").touch()
    for shown in commands(page):
        check_parses(shown)


def check_parses(command: Command) -> None:
    """Fail if a program doesn't exist, or doesn't take its options and arguments."""
    program, *arguments = command.words
    match program.removeprefix(".venv/bin/"):
        case "wsi-unet":
            done = CliRunner().invoke(cli, arguments)
            assert done.exit_code == 0, f"{command}: {done.output}"
        case "make":
            text = (ROOT / "Makefile").read_text(encoding="utf-8")
            targets = set(re.findall(r"^([a-z]+):", text, flags=re.MULTILINE))
            assert {word for word in arguments if "=" not in word} <= targets, command
        case "python":
            check_python(command, arguments)
        case "dask":
            module = importlib.import_module(f"distributed.cli.dask_{arguments[0]}")
            module.main.make_context("dask", arguments[1:])
        case other:
            assert other in OTHER_PROGRAMS, f"{command}: run it, or say how it is checked"
            check_names(command)


def check_python(command: Command, arguments: list[str]) -> None:
    """Fail if a script or module doesn't exist or never names one of the options."""
    if arguments[0] == "-m":
        found = importlib.util.find_spec(arguments[1])
        assert found is not None, command
        assert found.origin is not None, command
        path = Path(found.origin)
    else:
        path = ROOT / arguments[0]
    source = path.read_text(encoding="utf-8")
    for word in arguments[1:]:
        if word.startswith("--"):
            assert f'"{word}"' in source, f"{command}: no {word}"


def check_names(command: Command) -> None:
    """Fail if a command names a file of the checkout or an extra that doesn't exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in command.words[1:]:
        if word.startswith(("workflows/", "tests/", "examples/")):
            assert (ROOT / word).exists(), f"{command}: no {word}"
        extras = re.fullmatch(r"(?:wsi-unet|\.)\[([a-z0-9,]+)\]", word)
        if extras:
            assert set(extras[1].split(",")) <= set(project["optional-dependencies"]), command


def test_pages_whose_commands_run_show_some() -> None:
    shown = [command for page in PAGES for command in commands(page)]
    assert sum(map(is_run, shown)) >= 35
    for part in ONLY_PARSED:
        assert any(part in word for command in shown for word in command.words), part


# ---- pages whose commands run ----


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds what the README's commands find in a checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("examples", "tests", "workflows"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="session")
def small_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return such a folder, with only the annotated region of the slide and its surroundings."""
    folder = tmp_path_factory.mktemp("small")
    for name in ("tests", "workflows"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("*.svs"))
    write_part(folder / "examples" / SLIDE.name, x=slice(1050, 1390), y=slice(720, 1060))
    return folder


def write_part(path: Path, *, x: slice, y: slice) -> None:
    """Write a slide that has a part of the example slide's pixels in their place, and glass."""
    import numpy as np
    import tifffile
    import tiffslide

    with tiffslide.TiffSlide(SLIDE) as slide:
        pixels = slide.read_region((0, 0), 0, (1440, 1110), as_array=True)
    part = np.full_like(pixels, 255)
    part[y, x] = pixels[y, x]
    per_cm = 1e4 / 0.499
    with tifffile.TiffWriter(path) as file:
        file.write(
            part,
            photometric="rgb",
            tile=(256, 256),
            compression="zlib",
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
        )


@pytest.fixture(scope="session")
def inputs(small_checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write what "How do I" assumes: slides, annotations, models and a recipe, each small."""
    import imageio.v3
    import torch
    from models.reference_networks import Milesial, randomise

    folder = tmp_path_factory.mktemp("inputs")
    examples = small_checkout / "examples"
    slide = folder / "slide.svs"
    write_part(slide, x=slice(1100, 1200), y=slice(770, 870))
    (folder / "slides").mkdir()
    shutil.copy(slide, folder / "slides" / "a.svs")
    with (folder / "cohort.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["slide"], ["slides/a.svs"]])
    for name in ("outline", "regions"):
        shutil.copy(examples / "annotated-region.geojson", folder / f"{name}.geojson")
    shutil.copy(examples / "nuclei.geojson", folder / "annotations.geojson")
    field = next((ROOT / "tests" / "data" / "nuclei_he" / "images").glob("*.png"))
    imageio.v3.imwrite(folder / "picture.png", imageio.v3.imread(field)[..., :3])
    for name in ("fold-1", "fold-2"):
        shutil.copytree(ROOT / "wsi_unet" / "models" / "bundled" / "nuclei-he", folder / name)
    network = randomise(Milesial(3, 2, 4, bilinear=False))
    torch.save(network.state_dict(), folder / "unet.pth")
    shutil.copytree(ROOT / "tests" / "data", folder / "data")
    shutil.copy(examples / "nuclei.toml", folder / "recipe.toml")
    return folder


def run_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Run a page's commands in a folder and return what they said on stdout."""
    monkeypatch.chdir(folder)
    said = {}
    for command in filter(is_run, commands(page)):
        _, verb, *others = command.words
        done = CliRunner().invoke(cli, [verb, *others, *SHORTER.get(verb, ())])
        assert done.exit_code == 0, f"{command}: {done.output}"
        if command.redirected:
            (folder / command.redirected).write_text(done.stdout, encoding="utf-8")
        said[shlex.join(command.words)] = done.stdout
    return said


def test_the_readmes_commands_run(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run_page(ROOT / "README.md", checkout, monkeypatch)
    (scores,) = (text for command, text in said.items() if " evaluate " in command)
    found = re.search(r"nuclei +11624 +(\d+) +0\.78", scores)
    assert found is not None, scores
    assert int(found[1]) == pytest.approx(15_124, abs=20), "bfloat16 is the default of some CPUs"
    assert (checkout / "CMU-1-Small-Region-overlay.png").is_file()


def test_the_first_tutorials_commands_run(
    small_checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run_page(FIRST_SLIDE, small_checkout, monkeypatch)
    (scores,) = (text for command, text in said.items() if " evaluate " in command)
    found = re.search(r"nuclei +\d+ +\d+ +(\S+) +\S+ +(\S+) +(\S+)", scores)
    assert found is not None, scores
    text = FIRST_SLIDE.read_text(encoding="utf-8")
    for figure in found.groups():  # Dice, precision, recall
        assert f"{float(figure):.2f}" in text


def test_the_training_tutorials_commands_run(
    small_checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(TRAIN, small_checkout, monkeypatch)
    assert (small_checkout / "my-model" / "training" / "learning_curve.png").is_file()


def test_how_do_is_commands_run(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(HOW_DO_I, inputs, monkeypatch)


def test_git_ignores_what_the_commands_write(
    checkout: Path, small_checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    shown = [command for page in PAGES for command in commands(page)]
    written = {
        words[i + 1].rstrip("/")
        for words in (command.words for command in shown)
        for i, word in enumerate(words[:-1])
        if word in ("-o", "--output", "-keyout", "-out", "--scheduler-file")
        and not words[i + 1].startswith("s3://")
    }
    written |= {command.redirected for command in shown if command.redirected}
    written |= {"site", "demo", "CMU-1-Small-Region.ome.zarr", "CMU-1-Small-Region-overlay.png"}
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *(f"{name}/x" for name in sorted(written))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert {Path(line).parts[0] for line in done.stdout.splitlines()} >= {
        Path(name).parts[0] for name in written
    }


# ---- links, names and cards ----


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https://)([^)#]*)(?:#([^)]+))?\)", text):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page are called in links."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_site_lists_every_page() -> None:
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), flags=re.M)
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(pages)


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
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert {name.name for name in node.names} <= set(module.__all__)


def test_the_model_card_in_the_docs_is_valid() -> None:
    (card,) = blocks(ROOT / "docs" / "reference" / "model-format.md", "json")
    spec = ModelSpec.model_validate_json(card)
    assert [label.name for label in spec.labels] == ["background", "nuclei"]


def test_the_readme_names_every_verb() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    verbs = {name for name in wsi_unet.__all__ if name.islower() and name != "__version__"}
    assert not [verb for verb in verbs if f"`{verb}`" not in readme]

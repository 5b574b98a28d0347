"""The order of the rooms: imports go down and in no circle; the library names no flag."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = """
wsi_unet_cli.main > wsi_unet_cli > wsi_unet_cli.common > wsi_unet > view viewer training exports
> training.run training.plan > training.loop > training.artifacts > training.augmentation
> training.dataset > training.targets
> training.fields training.images training.runtime training.recipe_file
> training.recipe > training.recipe_sections training.report > cohorts
> evaluation segmentation measuring
> segmentation.runs > segmentation.dispatch > segmentation.planning > segmentation.worker
> segmentation.parameters segmentation.report segmentation.differences > segmentation.references
> ground_truth models
> models.importing > models.probing > models.inference > models.saving models.summary
> models.model models.destination > models.stored_network > models.exported
> models.networks > models.spec
> models.architectures models.appearance_range models.program_file models.weights_file models.finite
  models.validation_errors > models.number_types models.paths
> corrections > objects
> labels slides dask_cluster > predicted_area > slides.opening slides.tissue > slides.planes
> slides.readers
> slides.slide slides.fingerprint > slides.series slides.resample > slides.antialias
> slides.pixel_size > slides.levels
> slides.sources slides.window_memory slides.library_messages slides.deadline > storage.locking
> storage annotations metrics png_files
> logs locations signals colour image_files samples user_cache atomic_files
> geometry errors cores process_cache regular_files csv_cells wording
  user_folders _version
"""
"""From the roof down; rooms on one floor don't know each other. `wsi_unet.` is left out."""
LEVELS = {
    word if word.startswith("wsi_unet") else f"wsi_unet.{word}": level
    for level, line in enumerate(reversed(FLOORS.split(">")))
    for word in line.split()
}


def modules() -> dict[str, Path]:
    """Return every module's name and file; of a package that loads lazily, its stub."""
    folders = ((ROOT, "wsi_unet"), (ROOT / "cli", "wsi_unet_cli"))
    files = [(base, p) for base, top in folders for p in sorted((base / top).rglob("*.py*"))]
    dotted = [(".".join(p.relative_to(base).with_suffix("").parts), p) for base, p in files]
    return {name.removesuffix(".__init__"): p for name, p in dotted if p.suffix in {".py", ".pyi"}}


MODULES = modules()


def imports(name: str) -> set[str]:
    """Return the modules of ours that a module imports, inside functions too."""
    imported, package = set(), name if MODULES[name].stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module
            names = {f"{start}.{alias.name}" for alias in node.names}
            imported |= {n if n in MODULES else n.rpartition(".")[0] for n in names}
    return (imported & MODULES.keys()) - {name}


def room(name: str) -> str:
    """Return the room of a module: the longest name in the drawing that it begins with."""
    return max((r for r in LEVELS if f"{name}.".startswith(f"{r}.")), key=len)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    above = {
        other
        for other in imports(name)
        if room(other) != room(name) and LEVELS[room(other)] >= LEVELS[room(name)]
    }
    assert not above


def test_there_is_no_circle() -> None:
    TopologicalSorter({name: imports(name) for name in MODULES}).prepare()


@pytest.mark.parametrize("name", [name for name in MODULES if "_cli" not in name])
def test_the_library_speaks_python(name: str) -> None:
    assert not re.findall(r"(?<![-\w])--[a-z][a-z-]+", MODULES[name].read_text())

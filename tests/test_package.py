"""The package from outside: public names, the cost of importing it, the contents of a wheel."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import wsi_unet

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "zarr", "dask", "distributed", "xarray", "skimage", "tifffile", "pydantic")


def modules_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after running `code`."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import wsi_unet",
        "import wsi_unet.slides, wsi_unet.labels, wsi_unet.models, wsi_unet.view",
        "import wsi_unet.segmentation, wsi_unet.storage, wsi_unet.ground_truth",
        "import wsi_unet.annotations, wsi_unet.metrics, wsi_unet.evaluation",
        "import wsi_unet_cli.main",
    ],
)
def test_importing_loads_nothing_heavy(code: str) -> None:
    assert modules_after(code).isdisjoint(HEAVY)


STUBS = sorted((ROOT / "wsi_unet").rglob("__init__.pyi"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.parent.name)
def test_every_stub_says_what_its_package_exports(stub: Path) -> None:
    tree = ast.parse(stub.read_text())
    typed = {a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    package = import_module(".".join(stub.parent.relative_to(ROOT).parts))
    (listed,) = (n.value for n in tree.body if isinstance(n, ast.Assign))
    assert package.__all__ == ast.literal_eval(listed) == sorted(typed)
    assert typed <= set(dir(package))
    for name in typed:
        assert getattr(package, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="segmnt"):
        _ = wsi_unet.segmnt  # type: ignore[attr-defined]


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert wsi_unet.__version__ == version("wsi-unet")


def test_a_wheel_holds_the_two_packages_and_nothing_else(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (artifact,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(artifact) as wheel:
        names = wheel.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"wsi_unet", "wsi_unet_cli"}
    assert "wsi_unet/models/bundled/nuclei-he/model.json" in names
    assert {"wsi_unet/py.typed", "wsi_unet_cli/py.typed"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_tracked_files_name_no_machine_paths() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    words = ("/wo" + "rk/", "/ho" + "me/", "/ro" + "ot/")
    suffixes = {".py", ".md", ".toml", ".txt", ".yaml", ".json", ""}
    for name in filter(None, tracked.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in suffixes and path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not [word for word in words if word in text], name

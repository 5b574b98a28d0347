"""Checkpoints become models once, and are kept where they are found again."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from models.reference_networks import Milesial, randomise
from safetensors.torch import save_file

from wsi_unet.errors import ModelError, OutputError
from wsi_unet.models import load_model
from wsi_unet.models.importing.checkpoints import import_model
from wsi_unet.models.importing.imported_models import cache_folder, load_or_import_model


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_UNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "unet.pth"
    torch.save(randomise(Milesial(3, 2, 4, bilinear=False)).state_dict(), path)
    return path


def test_a_checkpoint_is_kept_by_its_content(checkpoint: Path, tmp_path: Path) -> None:
    model = load_or_import_model(checkpoint)
    elsewhere = tmp_path / "elsewhere" / "unet.pth"
    elsewhere.parent.mkdir()
    shutil.copy(checkpoint, elsewhere)
    assert load_or_import_model(elsewhere) == model
    torch.save(randomise(Milesial(3, 2, 4, bilinear=False), seed=1).state_dict(), checkpoint)
    assert load_or_import_model(checkpoint).sha256 != model.sha256
    assert len(list(cache_folder().iterdir())) == 2


def test_what_is_kept_is_what_an_import_makes(checkpoint: Path, tmp_path: Path) -> None:
    imported = import_model(checkpoint, tmp_path / "model")
    assert (
        load_or_import_model(checkpoint).sha256
        == imported.sha256
        == load_model(imported.path).sha256
    )


def test_a_damaged_copy_is_made_again(checkpoint: Path) -> None:
    model = load_or_import_model(checkpoint)
    weights = model.path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert load_or_import_model(checkpoint).sha256 == model.sha256
    assert load_model(model.path).sha256 == model.sha256


def test_several_may_want_it_at_once(checkpoint: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(load_or_import_model, [checkpoint] * 8))
    assert len({model.sha256 for model in models}) == 1
    assert len(list(cache_folder().glob("*/*"))) == 1


def test_a_folder_that_cannot_be_written_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WSI_UNET_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"can't keep the imported model in the cache .*file"):
        load_or_import_model(checkpoint)


def test_without_a_home_the_cache_must_be_named(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("WSI_UNET_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(OutputError, match=r"home directory.*set WSI_UNET_CACHE to a folder"):
        load_or_import_model(checkpoint)


def test_models_are_loaded_as_ever(checkpoint: Path, tmp_path: Path) -> None:
    assert load_or_import_model("nuclei-he") == load_model("nuclei-he")
    single = import_model(checkpoint, tmp_path / "model.safetensors")
    assert load_or_import_model(single.path).sha256 == single.sha256
    assert not cache_folder().exists()
    with pytest.raises(ModelError, match="neither a path nor a bundled model"):
        load_or_import_model(tmp_path / "nothing")


def test_weights_that_are_no_model_are_never_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "mine.safetensors"
    save_file(torch.load(checkpoint), foreign)
    bare = tmp_path / "bare" / "weights.safetensors"
    bare.parent.mkdir()
    shutil.copy(foreign, bare)
    before = foreign.read_bytes()
    for source, target in (
        (checkpoint, foreign),
        (foreign, foreign),
        (checkpoint, bare.parent),
        (bare, bare.parent),
    ):
        with pytest.raises(OutputError, match="it isn't overwritten"):
            import_model(source, target, overwrite=True)
    assert foreign.read_bytes() == bare.read_bytes() == before


def test_a_model_is_not_overwritten_by_what_it_is_made_of(checkpoint: Path, tmp_path: Path) -> None:
    folder = import_model(checkpoint, tmp_path / "model").path
    single = import_model(checkpoint, tmp_path / "single.safetensors").path
    for source, target in ((folder / "weights.safetensors", folder), (single, single)):
        with pytest.raises(OutputError, match="holds the file to import"):
            import_model(source, target, overwrite=True)
    for target in (folder, single):
        import_model(checkpoint, target, overwrite=True)


@pytest.mark.parametrize("inside", ["x", "x/y", "x/model.safetensors"])
def test_a_place_that_cannot_be_written_is_named(
    inside: str, checkpoint: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    for place in (checkpoint / inside, Path("/proc") / inside, tmp_path / ("n" * 300)):
        with pytest.raises(OutputError, match=f"can't write {place}: ") as raised:
            import_model(checkpoint, place)
        assert "\n" not in str(raised.value)
        assert "exists" not in str(raised.value).lower()
    assert sorted(tmp_path.rglob("*")) == before

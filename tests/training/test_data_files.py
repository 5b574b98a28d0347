"""Finding the files that a recipe names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsi_unet.training.dataset.files import find_files, natural_order, stem_of
from wsi_unet.training.recipe_sections import DataSource


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(folder: Path, **source: str) -> list[tuple[str, str]]:
    files = find_files(DataSource.model_validate(source), 0, folder)
    return [(one.name, str(one.labels.relative_to(folder))) for one in files]


def test_a_folder_is_its_images_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "a/10.png", "a/9.JPG", "a/b.svs", "a/.hidden.png", "a/notes.txt", "a/sub/1.png")
    touch(tmp_path, "t/10.geojson", "t/9.png", "t/b.xml", "t/b.txt", "t/unused.png")
    assert found(tmp_path, images="a", labels="t") == [
        ("a/9.JPG", "t/9.png"),
        ("a/10.png", "t/10.geojson"),
        ("a/b.svs", "t/b.xml"),
    ]


def test_patterns_files_and_absolute_paths(tmp_path: Path) -> None:
    touch(tmp_path, "a/1/x.png", "a/2/y.png", "a/z.tif", "x.png", "t/x.png", "t/y.png", "t/z.json")
    both = [("a/1/x.png", "t/x.png"), ("a/2/y.png", "t/y.png")]
    assert found(tmp_path, images="a/**/*.png", labels="t") == both
    assert found(tmp_path, images=f"{tmp_path}/a/*/*.png", labels=f"{tmp_path}/t") == both
    assert found(tmp_path, images="x.png", labels="t/z.json") == [("x.png", "t/z.json")]


def test_a_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].png", "t.png")
    assert found(tmp_path, images="a[1].png", labels="t.png") == [("a[1].png", "t.png")]


def test_annotations_may_lie_beside_the_slides(tmp_path: Path) -> None:
    touch(tmp_path, "s/a.ome.tif", "s/a.geojson", "s/b.svs", "s/b.xml")
    (tmp_path / "s" / "c.ome.zarr").mkdir()
    touch(tmp_path, "s/c.json", "s/d.svs", "s/d.geojson.gz")
    assert found(tmp_path, images="s", labels="s") == [
        ("s/a.ome.tif", "s/a.geojson"),
        ("s/b.svs", "s/b.xml"),
        ("s/c.ome.zarr", "s/c.json"),
        ("s/d.svs", "s/d.geojson.gz"),
    ]


def test_folders_that_are_slides(tmp_path: Path) -> None:
    touch(tmp_path, "s/a/1.dcm", "s/a/2.dcm", "t/a.png", "s/other/x.txt")
    assert found(tmp_path, images="s", labels="t") == [("s/a", "t/a.png")]
    assert found(tmp_path, images="s/a", labels="t") == [("s/a", "t/a.png")]


def test_within(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "t/1.png", "w/1.geojson")
    source = DataSource(images="a", labels="t", within="w")
    (file,) = find_files(source, 3, tmp_path)
    assert file.within == tmp_path / "w" / "1.geojson"
    assert file.source == 3


def test_patients_are_files_or_groups_of_them(tmp_path: Path) -> None:
    touch(tmp_path, "a/P1_1.png", "a/P1_2.png", "a/P2_1.png", "t/P1_1.png", "t/P1_2.png")
    touch(tmp_path, "t/P2_1.png")
    source = DataSource(images="a", labels="t", group="P([0-9]+)_")
    assert [one.patient for one in find_files(source, 0, tmp_path)] == ["1", "1", "2"]
    source = DataSource(images="a", labels="t")
    assert len({one.patient for one in find_files(source, 0, tmp_path)}) == 3


@given(st.lists(st.integers(0, 10**12), unique=True))
def test_numbers_are_sorted_as_numbers(numbers: list[int]) -> None:
    np.random.default_rng(0).shuffle(numbers)
    names = [f"a{number}b.png" for number in numbers]
    assert sorted(names, key=natural_order) == [f"a{number}b.png" for number in sorted(numbers)]


@given(st.lists(st.text(alphabet="ab01²-", max_size=6)))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert sorted(sorted(names, key=natural_order)) == sorted(names)


def test_stems() -> None:
    names = ["a.png", "b.v2.ome.tif", "c.ome.zarr", "d.geojson", "e"]
    assert [stem_of(Path(name)) for name in names] == ["a", "b.v2", "c", "d", "e"]

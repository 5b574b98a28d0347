"""Searching for slides in folders, patterns and URLs."""

from __future__ import annotations

import glob
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_unet.cohorts import search
from wsi_unet.cohorts.search import find_slides
from wsi_unet.errors import InputError
from wsi_unet.storage.local_store import LocalStore


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make(
        tmp_path,
        *("s/a/1.svs", "s/a/1.png", "s/a/notes.txt", "s/b/2.TIF", "s/b/.hidden/3.svs"),
        *("s/.4.svs", "s/x.mrxs", "s/x/Data0000.dat", "s/x/preview.tif"),
        *("s/series/1.dcm", "s/series/2.dcm", "s/series/deeper/3.dcm"),
        *("s/z.zarr/zarr.json", "s/z.zarr/0/c/0/0.tif", "s/group/zarr.json", "s/group/a.tif"),
        *("s/done.ome.zarr/.wsi_unet/lock.json", "s/done.ome.zarr/zarr.json"),
    )
    return tmp_path


def test_a_folder_is_searched_with_all_below(folder: Path) -> None:
    found = find_slides("s")
    assert found.searched
    assert found.skipped == []
    assert found.slides == ["s/a/1.svs", "s/b/2.TIF", "s/series", "s/x.mrxs", "s/z.zarr"]
    assert find_slides(str(folder / "s") + "/").slides == [
        str(folder / slide) for slide in found.slides
    ]


@pytest.mark.parametrize("argument", ["s/a/1.svs", "s/a/notes.txt", "no/such.svs", "s/series",
                                      "s/series/", "s/z.zarr", "s/group", "s/done.ome.zarr",
                                      "s3://bucket/a.svs"])  # fmt: skip
def test_what_is_a_slide_itself_is_not_searched(folder: Path, argument: str) -> None:
    found = find_slides(argument)
    assert (found.slides, found.searched) == ([argument], False)


@pytest.mark.parametrize(
    ("pattern", "slides"),
    [
        ("s/*/*.svs", ["s/a/1.svs"]),
        ("s/**/*.svs", ["s/a/1.svs"]),
        ("**/1.*", ["s/a/1.svs"]),
        ("s/**/*.png", ["s/a/1.png"]),
        ("./s/[ab]", ["./s/a/1.svs", "./s/b/2.TIF"]),
        ("s/*.zarr", ["s/z.zarr"]),
        ("s/seri*", ["s/series"]),
        ("s/**", ["s/a/1.svs", "s/b/2.TIF", "s/series", "s/x.mrxs", "s/z.zarr"]),
    ],
)
def test_a_pattern_takes_known_suffixes_and_those_it_names(
    folder: Path, pattern: str, slides: list[str]
) -> None:
    assert find_slides(pattern).slides == slides


@pytest.mark.parametrize("argument", ["", " "])
def test_nothing_is_no_slide(folder: Path, argument: str) -> None:
    with pytest.raises(InputError, match="empty"):
        find_slides(argument)


def test_a_name_with_brackets_is_a_name_where_it_is_there(folder: Path) -> None:
    make(folder, "s/a[1].svs")
    assert find_slides("s/a[1].svs") == search.SearchResult(["s/a[1].svs"], searched=False)


def test_links_are_followed_but_not_in_circles(folder: Path) -> None:
    (folder / "s/b/up").symlink_to(folder / "s")
    (folder / "s/b/round").symlink_to(folder)
    (folder / "s/itself").symlink_to("itself")
    (folder / "s/gone.svs").symlink_to("nowhere")
    make(folder, "elsewhere/9.svs")
    (folder / "s/link").symlink_to(folder / "elsewhere")
    plain = {"s/a/1.svs", "s/b/2.TIF", "s/series", "s/x.mrxs", "s/z.zarr"}
    expected = {os.path.realpath(slide) for slide in plain | {"elsewhere/9.svs", "s/gone.svs"}}
    found = find_slides("s").slides
    assert {os.path.realpath(slide) for slide in found} == expected
    assert len(found) == len(expected)
    assert len(find_slides("s/**/*.svs").slides) < 10


def test_unreadable_folders_are_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: str) -> object:
        if path == "s/b":
            raise PermissionError(13, "Permission denied")
        return real(path)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    found = find_slides("s")
    assert found.skipped == ["s/b: can't be searched: Permission denied"]
    assert "s/a/1.svs" in found.slides


@pytest.mark.parametrize("argument", ["empty", "empty/*.svs", "empty/**", "nowhere/*.svs"])
def test_nothing_found_is_one_line(folder: Path, argument: str) -> None:
    make(folder, "empty/overview.png", "empty/table.csv")
    with pytest.raises(InputError, match="no slides found") as caught:
        find_slides(argument)
    assert str(caught.value).startswith(argument)
    assert "\n" not in str(caught.value)
    assert "'*.png'" in str(caught.value)


names = st.text("ab.", min_size=1, max_size=2).filter(lambda name: not name.startswith("."))
trees = st.lists(
    st.tuples(st.lists(names, max_size=2), st.sampled_from(["a.svs", "b.svs", "a.png", "b.t"])),
    max_size=8,
)
patterns = st.tuples(
    st.lists(st.sampled_from(["**", "*", "a", "a*", "?", "[ab]", "*.*"]), max_size=3),
    st.sampled_from(["*.svs", "a.svs", "?.png", "[b]*.svs", "b.t", "**.svs"]),
)


@given(trees, patterns)
def test_patterns_match_as_globs_do(
    tree: list[tuple[list[str], str]], pattern: tuple[list[str], str]
) -> None:
    """Python's own `glob` is the judge, for patterns whose last part names a suffix."""
    with tempfile.TemporaryDirectory() as name:
        for folders, file in tree:
            try:
                make(Path(name), "/".join([*folders, file]))
            except OSError:  # a folder of that name is there as a file, or the other way round
                continue
        wanted = "/".join([name, *pattern[0], pattern[1]])
        matched = set(glob.glob(wanted, recursive=True))  # noqa: PTH207 (an independent judge)
        expected = sorted(path for path in matched if Path(path).is_file())
        if not any(sign in wanted for sign in "*?["):
            return
        try:
            slides = find_slides(wanted).slides
        except InputError:
            slides = []
        assert slides == expected


KEYS = (
    *("a/1.svs", "a/1.png", "a/.hidden/2.svs", "b/c/3.tif", "notes.txt"),
    *("z.zarr/.zgroup", "z.zarr/0/0.0", "z.zarr/0/deep.tif"),
    *("done.ome.zarr/.wsi_unet/lock.json", "done.ome.zarr/0/c/0/0", "done.ome.zarr/zarr.json"),
)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the object store by a folder, which is listed in the same way."""
    make(tmp_path, *(f"bucket/slides/{key}" for key in KEYS))
    monkeypatch.setattr(
        search,
        "open_store",
        lambda place: LocalStore(tmp_path / str(place).removeprefix("s3://")),
    )


@pytest.mark.parametrize(
    ("argument", "keys"),
    [
        ("s3://bucket/slides/", ["a/1.svs", "b/c/3.tif", "z.zarr"]),
        ("s3://bucket/slides/*", ["a/1.svs", "b/c/3.tif", "z.zarr"]),
        ("s3://bucket/slides/**/*.svs", ["a/1.svs"]),
        ("s3://bucket/slides/*/*.png", ["a/1.png"]),
        ("s3://bucket/slides/*.zarr", ["z.zarr"]),
        ("s3://bucket/sl*/b/**", ["b/c/3.tif"]),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_object_stores_are_searched_alike(argument: str, keys: list[str]) -> None:
    found = find_slides(argument)
    assert found.searched
    assert found.slides == [f"s3://bucket/slides/{key}" for key in keys]


@pytest.mark.usefixtures("bucket")
def test_an_object_store_without_slides_is_one_line() -> None:
    for argument in ("s3://bucket/none/", "s3://bucket/slides/*.ndpi"):
        with pytest.raises(InputError, match=r"^s3://bucket/.*no slides found"):
            find_slides(argument)
    with pytest.raises(InputError, match="name it"):
        find_slides("s3://buck*/a.svs")

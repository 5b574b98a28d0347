from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_unet.errors import OptionError
from wsi_unet.locations import Location

PARTS = st.lists(
    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1).filter(
        lambda part: part not in (".", "..")
    ),
    min_size=1,
    max_size=4,
)
ROOTS = st.sampled_from(["/", "s3://bucket/"])


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/people/her")
    assert Location.parse("a.svs").path == tmp_path / "a.svs"
    assert Location.parse(Path("b") / "a.svs").path == tmp_path / "b" / "a.svs"
    assert str(Location.parse("~/a.svs")) == "/people/her/a.svs"
    assert str(Location.parse("/a/b/")) == "/a/b"
    assert not Location.parse("a:b/c.svs").is_url
    with pytest.raises(OptionError, match="home directory"):
        Location.parse("~nobody-of-this-name/a")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("s3://bucket/a/b.svs", "s3://bucket/a/b.svs"),
        ("S3://bucket/a/", "s3://bucket/a"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/ü b #1?.svs", "s3://bucket/ü b #1?.svs"),
        (Path("s3://bucket/a/b.svs"), "s3://bucket/a/b.svs"),
    ],
)
def test_urls_are_normalised(given: str | Path, meant: str) -> None:
    location = Location.parse(given)
    assert location.is_url
    assert str(location) == meant
    assert Location.parse(meant) == location
    with pytest.raises(ValueError, match="is a URL, not a path"):
        _ = location.path


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("gs://bucket/a", r"gs:// can't be read or written; paths and s3:// can"),
        ("https://host/a.svs", r"https:// can't be"),
        ("s3://", "isn't a complete URL"),
        ("s3://bucket//a", "nothing empty"),
        ("s3://bucket/a/../b", "isn't a complete URL"),
        ("s3://bucket/./b", "isn't a complete URL"),
    ],
)
def test_other_urls_are_refused_in_one_line(given: str, match: str) -> None:
    with pytest.raises(OptionError, match=match) as caught:
        Location.parse(given)
    assert str(caught.value).startswith(given)
    assert "\n" not in str(caught.value)


@given(ROOTS, PARTS)
def test_parsing_again_changes_nothing(root: str, parts: list[str]) -> None:
    location = Location.parse(root + "/".join(parts))
    assert Location.parse(location) is location
    assert Location.parse(str(location)) == location
    assert pickle.loads(pickle.dumps(location)) == location
    assert location.is_url == root.startswith("s3")


@given(ROOTS, PARTS)
def test_locations_are_taken_apart_and_put_together(root: str, parts: list[str]) -> None:
    top = Location.parse(root)
    location = top
    for part in parts:
        below = location / part
        assert (below.name, below.parent) == (part, location)
        location = below
    assert location == top / "/".join(parts)
    assert str(location) == root + "/".join(parts)


@pytest.mark.parametrize(("root", "name"), [("/", ""), ("s3://bucket", "bucket")])
def test_a_root_is_its_own_parent(root: str, name: str) -> None:
    location = Location.parse(root)
    assert location.parent == location
    assert location.name == name


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, wsi_unet.locations; print({'numpy', 'obstore', 'zarr'} & {*sys.modules})"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert found.stdout.strip() == "set()"

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_unet import locations
from wsi_unet.errors import OptionError


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/people/her")
    assert locations.resolve("a.svs") == str(tmp_path / "a.svs")
    assert locations.resolve(Path("b") / "a.svs") == str(tmp_path / "b" / "a.svs")
    assert locations.resolve("~/a.svs") == "/people/her/a.svs"
    assert locations.resolve("/a/b/") == "/a/b"
    assert not locations.is_url("a:b/c.svs")
    with pytest.raises(OptionError, match="home directory"):
        locations.resolve("~nobody-of-this-name/a")


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
    assert locations.is_url(given)
    assert locations.resolve(given) == meant
    assert locations.resolve(meant) == meant


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("gs://bucket/a", r"gs:// can't be read or written; paths and s3:// can"),
        ("https://host/a.svs", r"https:// can't be"),
        ("s3://", "isn't the URL of an object"),
        ("s3://bucket//a", "nothing empty"),
        ("s3://bucket/a/../b", "isn't the URL of an object"),
        ("s3://bucket/./b", "isn't the URL of an object"),
    ],
)
def test_other_urls_are_refused_in_one_line(given: str, match: str) -> None:
    with pytest.raises(OptionError, match=match) as caught:
        locations.resolve(given)
    assert str(caught.value).startswith(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("root", ["/data", "s3://bucket"])
def test_locations_are_taken_apart_and_put_together(root: str) -> None:
    place = locations.join(root, "a", "b.svs")
    assert place == f"{root}/a/b.svs"
    assert locations.name(place) == "b.svs"
    assert locations.parent(place) == f"{root}/a"
    assert locations.parent(locations.parent(place)) == root
    assert locations.join(place) == place


def test_a_bucket_is_a_root() -> None:
    assert locations.parent("s3://bucket") == "s3://bucket"
    assert locations.name("s3://bucket") == "bucket"


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, wsi_unet.locations; print({'numpy', 'obstore', 'zarr'} & {*sys.modules})"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert found.stdout.strip() == "set()"

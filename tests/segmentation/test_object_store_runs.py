"""Runs between buckets give the output of a run on a disk, whatever the store answers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dask
import pytest
from support.proxy import Proxy, Request
from support.runs import OPTIONS, Study, array_objects

import wsi_unet
from wsi_unet.errors import OutputError, SlideError, WsiUnetError
from wsi_unet.storage.opening import open_store
from wsi_unet.storage.s3 import client as remote
from wsi_unet.storage.s3.client import open_bucket
from wsi_unet.storage.store import ByteStore


@pytest.fixture
def slide(study: Study, bucket: str) -> str:
    """Upload the study's slide and return its URL."""
    open_bucket(bucket).put("slides/slide.png", study.slide.read_bytes())
    return f"{bucket}/slides/slide.png"


@pytest.fixture
def output(bucket: str) -> str:
    return f"{bucket}/results/slide.ome.zarr"


def run(study: Study, slide: str, output: str, **options: Any) -> wsi_unet.Report:
    return wsi_unet.segment(slide, output, study.folder / "model", **(OPTIONS | options))


def stored(store: ByteStore) -> dict[str, str]:
    """Return the hash of every shard and array document, as `array_objects` does."""
    found = {}
    for key in store.list(""):
        folder, _, name = key.rpartition("/")
        group = name == "zarr.json" and not folder.rpartition("/")[2].isdecimal()
        if not key.startswith(".wsi_unet/") and not group:
            found[key] = hashlib.sha256(store.get(key) or b"").hexdigest()
    return found


def test_a_run_is_the_same_and_is_resumed(
    study: Study, slide: str, output: str, s3_proxy: Proxy
) -> None:
    started = run(study, slide, output, region=(0, 0, 1024, 1024))
    assert started.blocks.total == 4
    report = run(study, slide, output)
    assert (report.state, report.blocks.resumed) == ("finished", 4)
    store = open_store(output)
    assert stored(store) == array_objects(study.whole)

    s3_proxy.forget()
    report = run(study, slide, output)
    assert (report.state, report.blocks.resumed) == ("finished", 12)
    written = [one.path for one in s3_proxy.requests if one.method in ("PUT", "DELETE")]
    assert all(path.endswith("/lock.json") for path in written)

    key = "labels/random/0/c/1/2"
    store.delete(key)
    report = run(study, slide, output)
    assert (report.state, report.blocks.resumed) == ("finished", 11)
    assert stored(store) == array_objects(study.whole)


def test_worker_processes_read_and_write_buckets(
    study: Study, slide: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Forked workers have the environment of the first that was started, with its credentials.
    settings = dask.config.config["distributed"]["worker"]
    monkeypatch.setitem(settings, "multiprocessing-method", "spawn")
    assert run(study, slide, output, cluster=wsi_unet.ClusterOptions(workers=2)).state == "finished"
    assert stored(open_store(output)) == array_objects(study.whole)


def test_a_slide_on_the_disk_and_in_a_bucket_are_one(
    study: Study, slide: str, tmp_path: Path, output: str
) -> None:
    """A run of one resumes a run of the other."""
    whole = study.finished(tmp_path / "out")
    assert run(study, slide, str(whole)).blocks.resumed == 12
    run(study, slide, output, region=(0, 0, 1024, 1024))
    assert run(study, str(study.slide), output).blocks.resumed == 4


def test_a_store_that_fails_now_and_then_changes_nothing(
    study: Study, slide: str, output: str, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", timedelta(milliseconds=20))
    chance = random.Random(3)

    def spoil_some(request: Request) -> int | str | None:
        return chance.choice([503, 500, "drop", "lose", *[None] * 12])

    s3_proxy.spoil = spoil_some
    for _ in range(3):
        try:
            report = run(study, slide, output)
        except WsiUnetError:  # where asking again isn't safe, it's for the user to do
            continue
        if report.state == "finished":
            break
    s3_proxy.spoil = lambda request: None
    assert run(study, slide, output).state == "finished"
    assert stored(open_store(output)) == array_objects(study.whole)


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (lambda slide, output: (slide, "s3://no-such-bucket/out"), OutputError, "is no bucket"),
        (lambda slide, output: ("s3://no-such-bucket/a.svs", output), SlideError, "is no bucket"),
        (lambda slide, output: (f"{slide}.svs", output), SlideError, "no such file"),
    ],
)
def test_what_is_not_there_is_one_clear_line(
    study: Study,
    slide: str,
    output: str,
    change: Callable[[str, str], tuple[str, str]],
    kind: type[WsiUnetError],
    match: str,
) -> None:
    with pytest.raises(kind, match=match) as caught:
        run(study, *change(slide, output))
    assert "\n" not in str(caught.value)
    assert stored(open_store(output)) == {}


def test_a_bucket_that_may_not_be_written_is_one_clear_line(
    study: Study, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with pytest.raises(OutputError, match=r"access is denied") as caught:
        run(study, str(study.slide), output)
    assert "\n" not in str(caught.value)

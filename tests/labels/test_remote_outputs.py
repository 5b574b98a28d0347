"""An output in a bucket has the bytes of an output in a folder."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from dask.base import is_dask_collection
from support.proxy import Proxy

from wsi_unet.errors import OutputError
from wsi_unet.labels.contents import read_label_names
from wsi_unet.labels.layout import ensure_root, mark_finished, remove_run
from wsi_unet.labels.progress import BlockMarker, Progress, ShardRecord
from wsi_unet.labels.reading import open_image, open_labels, open_probabilities
from wsi_unet.storage.opening import open_store
from wsi_unet.storage.store import ByteStore
from wsi_unet.view import write_overlay


@pytest.fixture
def url(bucket: str) -> str:
    return f"{bucket}/results/out.ome.zarr"


def test_the_same_bytes_lie_under_the_same_keys(make_output: Any, url: str) -> None:
    local, remote = make_output(), make_output(place=open_store(url))
    for output in (local, remote):
        mark_finished(output.store, "nuclei", (0, 8_000_000, 0), "2026-01-02T03:04:05Z")
    keys = list(remote.store.list(""))
    assert sorted(keys) == sorted(local.store.list(""))
    assert all(remote.store.get(key) == local.store.get(key) for key in keys)


def test_it_is_read_lazily_and_alike(
    make_output: Any, url: str, tmp_path: Path, s3_proxy: Proxy
) -> None:
    local = make_output()
    make_output(place=open_store(url))
    s3_proxy.forget()
    pairs = [
        (open_labels(url, level=1), open_labels(local.path, level=1)),
        (open_probabilities(f"{url}/"), open_probabilities(local.path)),
        (open_image(url), open_image(local.path)),
    ]
    assert not any("/c/" in request.path for request in s3_proxy.requests)
    for found, expected in pairs:
        assert is_dask_collection(found)
        xr.testing.assert_identical(found, expected)
    pictures = [
        write_overlay(output, tmp_path / f"{number}.png", max_side=256).read_bytes()
        for number, output in enumerate((url, local.path))
    ]
    assert pictures[0] == pictures[1]


def test_shards_are_read_at_once(make_output: Any, url: str, s3_proxy: Proxy) -> None:
    output = make_output(place=open_store(url))
    labels = open_labels(url)
    s3_proxy.forget()
    s3_proxy.delay = 0.1
    assert np.array_equal(labels.compute(num_workers=8), output.labels)
    assert s3_proxy.most_in_flight >= 6


def test_what_is_sent_to_workers_holds_no_credentials(
    make_output: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for-your-eyes-only")
    output = make_output(place=open_store(url))
    sent = pickle.dumps((open_labels(url), open_store(url)))
    assert b"for-your-eyes-only" not in sent
    labels, store = pickle.loads(sent)
    assert np.array_equal(labels[:100, :100].values, output.labels[:100, :100])
    assert store.get("zarr.json") == output.store.get("zarr.json")


def test_labels_are_removed(make_output: Any, url: str) -> None:
    store = make_output(place=open_store(url)).store
    remove_run(store, "nuclei")
    assert read_label_names(store) == []
    assert not list(store.list("labels/nuclei"))


def some_markers(store: ByteStore, count: int) -> list[BlockMarker]:
    """Return markers that are stored, each of a shard that is stored."""
    markers = []
    for number in range(count):
        key = f"labels/nuclei/0/c/0/{number}"
        store.put(key, b"a shard")
        marker = BlockMarker(
            block=(0, number),
            signature="s",
            counts=(),
            seconds={},
            attempts=1,
            shards={key: ShardRecord.from_shard(b"a shard")},
        )
        Progress(store, "nuclei").write_marker(marker)
        markers.append(marker)
    return markers


def test_markers_are_read_at_once_and_shards_looked_for_in_one_request(
    url: str, s3_proxy: Proxy
) -> None:
    store = open_store(url)
    markers = some_markers(store, 40)
    progress = Progress(store, "nuclei")
    s3_proxy.forget()
    s3_proxy.delay = 0.05
    found = list(progress.read_markers("s"))
    assert sorted(found, key=lambda marker: marker.block) == markers
    assert len(s3_proxy.requests) == 41
    assert s3_proxy.most_in_flight >= 10
    s3_proxy.forget()
    assert all(sound for _, sound in progress.check_shards(found))
    assert len(s3_proxy.requests) == 1
    s3_proxy.forget()
    assert all(sound for _, sound in progress.check_shards(found, contents=True))
    assert s3_proxy.most_in_flight >= 10


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    "use",
    [
        open_labels,
        open_image,
        lambda url: ensure_root(open_store(url), {}),
        lambda url: open_store(url).put("a", b"b"),
        lambda url: list(open_store(url).list("")),
        lambda url: open_store(url).delete_all("labels"),
    ],
)
def test_a_missing_bucket_is_one_clear_line(use: Callable[[str], object]) -> None:
    with pytest.raises(OutputError, match="there is no bucket 'no-such-bucket' at http") as caught:
        use("s3://no-such-bucket/out.ome.zarr")
    assert str(caught.value).startswith("s3://no-such-bucket/out.ome.zarr: ")
    assert "\n" not in str(caught.value)


def test_a_bucket_that_may_not_be_written_keeps_what_it_holds(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(url)
    store.put("zarr.json", b"old")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SKIP_SIGNATURE", "true")
        for write in (
            lambda: store.put("zarr.json", b"new"),
            lambda: store.create("zarr.json", b"new"),
            lambda: store.swap("zarr.json", b"old", b"new"),
        ):
            with pytest.raises(OutputError, match=r"can't \w+ 'zarr\.json': access is denied"):
                write()
    assert store.get("zarr.json") == b"old"


def test_nothing_there_is_no_output(bucket: str) -> None:
    with pytest.raises(OutputError, match="there is no output of wsi-unet here"):
        open_labels(f"{bucket}/nothing")
    open_store(bucket).put("somebody's/file", b"x")
    with pytest.raises(OutputError, match=r"isn't empty .* was not written by wsi-unet"):
        open_labels(bucket)

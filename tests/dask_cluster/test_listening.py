"""What each kind of run listens on: nothing, or loopback where worker processes need it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.clusters import scheduler, worker
from support.labelled import blobs
from support.listening import listeners, loopback, watched_listeners
from support.oracle import balanced_model, textured, write_png
from support.runs import CONFIG, OPTIONS
from support.training import small_recipe, train_small

import wsi_unet
from wsi_unet.models import load_model

SIDE = 700

pytestmark = pytest.mark.skipif(
    not Path("/proc/net/tcp").exists(), reason="only Linux says who listens"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide and a model."""
    folder, image = tmp_path_factory.mktemp("listening"), textured(SIDE, SIDE)
    write_png(folder / "slide.png", image)
    balanced_model(CONFIG, image, folder / "model")
    return folder


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], set[str]]]:
    with watched_listeners(monkeypatch) as look:
        yield look


def test_listeners_are_found(look: Callable[[], set[str]]) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.create_server((host, 0)) as server:
            port = server.getsockname()[1]
            assert f"{host}:{port}" in listeners()
        assert f"{host}:{port}" not in listeners()
        assert f"{host}:{port}" in look()
    assert not loopback(look())


def segment(
    folder: Path, output: Path, look: Callable[[], set[str]], cluster: wsi_unet.ClusterOptions
) -> None:
    looks = []
    report = wsi_unet.segment(
        folder / "slide.png", output, folder / "model", cluster=cluster,
        on_progress=lambda _: looks.append(look()), **OPTIONS,
    )  # fmt: skip
    assert report.state == "finished"
    assert looks


def test_a_plain_run_listens_on_nothing(
    folder: Path, tmp_path: Path, look: Callable[[], set[str]]
) -> None:
    segment(folder, tmp_path / "out", look, wsi_unet.ClusterOptions())
    assert look() == set()


def test_worker_processes_listen_on_loopback_only(
    folder: Path, tmp_path: Path, look: Callable[[], set[str]]
) -> None:
    segment(folder, tmp_path / "out", look, wsi_unet.ClusterOptions(workers=2))
    assert loopback(look())
    assert len(look()) == 5  # the scheduler, and for each worker itself and its nanny


def test_a_client_of_a_cluster_listens_on_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        scheduler(tmp_path) as address,
        worker(address),
        watched_listeners(monkeypatch) as look,
    ):
        segment(folder, tmp_path / "out", look, wsi_unet.ClusterOptions(scheduler=address))
        assert look() <= listeners()  # a worker that started late; the client is closed by now


def test_a_training_listens_on_nothing(tmp_path: Path, look: Callable[[], set[str]]) -> None:
    found: list[set[str]] = []
    train_small(
        small_recipe(), tmp_path / "model", workers=1, on_progress=lambda _: found.append(look())
    )
    assert found
    assert look() == set()


@pytest.mark.parametrize("workers", [None, 1])
def test_an_evaluation_listens_on_loopback_at_most(
    tmp_path: Path, look: Callable[[], set[str]], workers: int | None
) -> None:
    for seed, name in enumerate(("p.png", "t.png")):
        Image.fromarray(blobs((300, 410), seed)).save(tmp_path / name)
    cluster = wsi_unet.ClusterOptions(workers=workers)
    wsi_unet.evaluate(tmp_path / "p.png", tmp_path / "t.png", cluster=cluster)
    assert loopback(look())
    assert bool(look()) == bool(workers)


def test_map_unet_listens_on_nothing(folder: Path, look: Callable[[], set[str]]) -> None:
    def looked_at(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        look()
        return labels

    pixels = da.from_array(textured(SIDE, SIDE), chunks=(300, 300, 3))
    labels = wsi_unet.map_unet(pixels, load_model(folder / "model"))
    da.map_blocks(looked_at, getattr(labels, "data", labels)).compute()
    assert look() == set()

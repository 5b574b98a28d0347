"""A run in progress: what is done is shown, what isn't looks like nothing that is."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.labelled import FINISHED, blobs, write_store
from viewer.serving import Client, serving

from wsi_unet.labels.layout import mark_finished
from wsi_unet.labels.progress import BlockFailure, BlockMarker, Progress
from wsi_unet.labels.pyramid import Pyramid, reduce_mode
from wsi_unet.labels.writer import build_tail, write_block
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.store import ByteStore
from wsi_unet.viewer import following
from wsi_unet.viewer.painting import HATCHINGS
from wsi_unet.viewer.run_states import Look
from wsi_unet.viewer.tile_grid import TILE
from wsi_unet.viewer.viewed import read_revision

SHAPE = (2600, 2100)
LABELS = blobs(SHAPE, seed=5)
PYRAMID = Pyramid(SHAPE, 512)


class Run:
    """A run that computes a block when it is told to."""

    def __init__(self, path: Path) -> None:
        write_store(path, LABELS, finished=False)
        self.path = path
        self.store = LocalStore(path)
        self.progress = Progress(self.store, "nuclei")
        for folder in (
            "labels/nuclei/0/c",
            "labels/nuclei/1/c",
            "labels/nuclei/2/c",
            "labels/nuclei/3/c",
        ):
            self.store.delete_all(folder)
        self.store.delete_all(".wsi_unet/nuclei/blocks")

    def compute(self, index: tuple[int, int], boxes: Any = None) -> None:
        core = PYRAMID.grid.core(index)
        part = LABELS[core.slices()]
        shards = write_block(self.store, "labels/nuclei", PYRAMID, index, part, reduce_mode)
        self.progress.write_marker(
            BlockMarker(
                block=index, signature="0", counts=(), seconds={"predict": 2.0}, attempts=1,
                ended=time.time(), shards=shards, boxes=boxes,
            )
        )  # fmt: skip

    def fail(self, index: tuple[int, int], error: str) -> None:
        self.progress.write_failure(BlockFailure(block=index, error=error, attempts=3))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "a.ome.zarr")


@contextmanager
def listening(client: Client) -> Iterator[Iterator[Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    known = {"Authorization": f"Bearer {client.token}"}
    connection.request("GET", "/slides/0/events", headers=known)
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"

    def hear() -> Iterator[Any]:
        while line := answer.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    try:
        yield hear()
    finally:
        answer.close()  # it has taken the socket over
        connection.close()


def expected_at(zoom: int, done: list[tuple[int, int]]) -> NDArray[np.uint8]:
    labels = np.zeros_like(LABELS)
    for index in done:
        box = PYRAMID.grid.core(index).slices()
        labels[box] = LABELS[box]
    for _ in range(zoom):
        labels = reduce_mode(labels)
    return labels


def test_blocks_are_shown_as_they_are_done(run: Run) -> None:
    run.compute((0, 0))
    with serving(run.path) as client, listening(client) as news:
        first = next(news)
        assert first["live"] is True
        assert first["runs"][0]["progress"]["total"] == 30
        assert first["runs"][0]["progress"]["done"] == 1
        check_tiles(client, [(0, 0)], {})
        run.compute((1, 2))
        run.fail((2, 1), "tile 7 can't be decoded")
        written = time.monotonic()
        for state in news:
            if state["runs"][0]["progress"]["done"] == 2 and state["runs"][0]["failures"]:
                break
        assert time.monotonic() - written < 30  # 2 s on a machine that has nothing else to do
        (found,) = state["runs"]
        assert found["version"] > first["runs"][0]["version"]
        assert found["progress"]["failed"] == 1
        assert found["progress"]["mpx_per_s"] > 0
        assert found["progress"]["seconds_left"] > 0
        assert found["failures"] == [
            {"box": [512, 1024, 1024, 1536], "error": "tile 7 can't be decoded"}
        ]
        check_tiles(client, [(0, 0), (1, 2)], {(2, 1): Look.FAILED})


def check_tiles(
    client: Client, done: list[tuple[int, int]], others: dict[tuple[int, int], Look]
) -> None:
    looks = np.full(PYRAMID.grid.size, Look.WAITING)
    for index in done:
        looks[index] = Look.LOOKED
    for index, look in others.items():
        looks[index] = look
    for zoom in range(4):
        rows, columns = (-(-side >> zoom) for side in SHAPE)
        shown = client.read_tile(f"/slides/0/classes/0/{zoom}/0/0?show=1&style=fill")
        values = expected_at(zoom, done)[:TILE, :TILE]
        np.testing.assert_array_equal(
            shown[: values.shape[0], : values.shape[1], 3] > 0, values == 1
        )
        hatched = client.read_tile(f"/slides/0/looks/0/{zoom}/0/0")
        y, x = np.indices((min(rows, TILE), min(columns, TILE)))
        at = looks[(y << zoom) // 512, (x << zoom) // 512]
        for look, hatching in HATCHINGS.items():
            drawn = hatched[: at.shape[0], : at.shape[1]][at == look]
            if len(drawn):
                assert (drawn[:, 3] >= hatching.veil).all()
                assert (drawn[:, :3] == hatching.colour).all()


def test_a_run_that_finishes_is_opened_anew(run: Run) -> None:
    with serving(run.path) as client, listening(client) as news:
        first = next(news)
        for index in PYRAMID.grid:
            run.compute(index)
        build_tail(run.store, "labels/nuclei", PYRAMID, reduce_mode, None)
        mark_finished(run.store, "nuclei", np.bincount(LABELS.ravel()).tolist(), FINISHED)
        for state in news:
            if state["revision"] != first["revision"]:
                break
        about = client.ask("/slides/0/description").json
        assert about["revision"] == state["revision"]
        assert about["live"] is False
        assert about["runs"][0]["everywhere"] is True
        classes = about["groups"][0]["classes"]
        assert [each["pixels"] for each in classes] == np.bincount(LABELS.ravel()).tolist()[1:]
        assert classes[0]["mm2"] == pytest.approx(classes[0]["pixels"] * 0.25 / 1e6)
        tile = client.read_tile("/slides/0/classes/0/3/0/0?show=1&style=fill")
        values = expected_at(3, [*PYRAMID.grid])
        np.testing.assert_array_equal(
            tile[: values.shape[0], : values.shape[1], 3] > 0, values == 1
        )


def test_markers_are_looked_at_only_while_a_page_listens(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def look(store: ByteStore) -> str:
        looks.append(time.monotonic())
        return read_revision(store)

    monkeypatch.setattr(following, "read_revision", look)
    with serving(run.path) as client:
        assert client.ask("/slides/0/description").status == 200
        assert looks == []
        with listening(client) as news, listening(client) as others:
            next(news)
            next(others)
            run.compute((0, 1))
            assert next(news)["runs"] == next(others)["runs"]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:  # until the server has noticed that they left
            before = len(looks)
            time.sleep(2.5)
            if len(looks) == before:
                break
        assert len(looks) == before


def test_a_result_that_goes_away(run: Run) -> None:
    with serving(run.path) as client, listening(client) as news:
        next(news)
        shutil.rmtree(run.path)
        state = next(state for state in news if state["problems"])
        assert str(run.path) in state["problems"][0] or "labels" in state["problems"][0]

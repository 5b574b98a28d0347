"""Real schedulers and workers: the same labels as in one process, and nothing heavy on the wire."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import warm
from support.oracle import balanced_model, textured, whole_image_forward, write_png
from support.runs import CONFIG, OPTIONS

import wsi_unet
from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.segmentation.worker.task import Run, Task


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return textured(1300, 1100)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Run a `dask scheduler` and two `dask worker` on loopback, as a user would start them."""
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    process = warm.Popen(
        [*dask, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    address = ""
    for line in process.stderr:
        found = re.search(r"Scheduler at:\s+(tcp://\S+)", line)
        if found:
            address = found[1]
            break
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address]
    workers = [
        warm.Popen([*worker, "--nthreads", "2", "--no-dashboard"], stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    yield address
    for stop in workers:
        stop.terminate()
        stop.wait(timeout=30)
    process.terminate()
    process.wait(timeout=30)
    process.stderr.close()


def test_an_existing_cluster_gives_the_same_labels(
    scheduler: str, tmp_path: Path, image: NDArray[np.uint8]
) -> None:
    slide = write_png(tmp_path / "slide.png", image)
    _, network = balanced_model(CONFIG, image, tmp_path / "model")
    truth = whole_image_forward(network, CONFIG, image)
    wait_for_workers(scheduler, 2)
    report = wsi_unet.segment(
        slide,
        tmp_path / "out",
        tmp_path / "model",
        cluster=wsi_unet.ClusterOptions(scheduler=scheduler),
        **OPTIONS,
    )
    assert report.state == "finished"
    assert report.parameters["processes_per_core"] == 2
    labels = wsi_unet.open_labels(tmp_path / "out").values
    assert not ((labels != truth.labels) & truth.decided).any()


def test_a_relative_path_means_the_clients_folder(
    scheduler: str, tmp_path: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "slide.png", image)
    balanced_model(CONFIG, image, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    report = wsi_unet.segment(
        "slide.png", "out", "model", cluster=wsi_unet.ClusterOptions(scheduler=scheduler), **OPTIONS
    )
    assert report.state == "finished"
    assert (tmp_path / "out" / "zarr.json").exists()


def wait_for_workers(scheduler: str, count: int) -> None:
    deadline = time.monotonic() + 180
    with open_client(ClusterOptions(scheduler=scheduler)) as client:
        while len(client.nthreads()) < count:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_tasks_are_small_and_hold_neither_slide_nor_model() -> None:
    task = Task(Run("/somewhere/out.ome.zarr", "nuclei-he", "9f" * 32, "0123456789ab"), (123, 456))
    assert pickle.loads(pickle.dumps(task)) == task
    assert len(pickle.dumps(task)) < 400
    assert task.key.startswith("block-")
    assert task.key != Task(task.run, task.index, attempt=2).key

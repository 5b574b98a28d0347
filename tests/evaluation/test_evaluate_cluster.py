"""Evaluations on a Dask cluster: the same scores, and one line if it fails."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from distributed import Client
from PIL import Image
from support.clusters import scheduler, worker
from support.labelled import blobs, rectangle, write_geojson

import wsi_unet
from wsi_unet.dask_cluster import waiting
from wsi_unet.errors import AnnotationError, ClusterError, EvaluationError, OptionError
from wsi_unet.evaluation import cluster, pairs
from wsi_unet.evaluation.pairs import Comparison, Pair
from wsi_unet.evaluation.run import open_comparison
from wsi_unet.geometry import BlockIndex, Box
from wsi_unet_cli.main import cli

SHAPE = (300, 410)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a scheduler with two workers in processes of their own."""
    with scheduler(tmp_path_factory.mktemp("cluster")) as address, worker(address), worker(address):
        yield address


@pytest.fixture(autouse=True)
def small_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "SIDE", 64)


def image(path: Path, seed: int) -> Path:
    Image.fromarray(blobs(SHAPE, seed)).save(path)
    return path


@pytest.mark.parametrize("instances", [False, True])
def test_a_cluster_gives_the_answer_of_one_process(
    tmp_path: Path, make_store: Any, address: str, instances: bool
) -> None:
    outlines = [
        ("part", rectangle(Box(10, 20, 280, 330))),
        ("other", rectangle(Box(200, 250, 300, 400))),
    ]
    arguments: dict[str, Any] = {
        "prediction": make_store(blobs(SHAPE)),
        "truth": image(tmp_path / "truth.png", 1),
        "within": write_geojson(tmp_path / "within.geojson", outlines),
        "region": (0, 0, 400, 290),
        "ignore": (2,),
        "instances": instances,
    }
    expected = wsi_unet.evaluate(**arguments)
    evaluation = wsi_unet.evaluate(**arguments, cluster=wsi_unet.ClusterOptions(scheduler=address))
    assert evaluation == expected


def test_relative_paths_mean_this_processes_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    image(tmp_path / "p.png", 0)
    image(tmp_path / "t.png", 1)
    monkeypatch.chdir(tmp_path)
    given = ["evaluate", "p.png", "t.png", "--json"]
    here = json.loads(CliRunner().invoke(cli, given).stdout)
    done = CliRunner().invoke(cli, [*given, "--scheduler", address])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["confusion"] == here["confusion"]


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path, address: str) -> None:
    prediction, truth = image(tmp_path / "p.png", 0), image(tmp_path / "t.png", 1)
    assert (
        wsi_unet.evaluate(
            prediction, truth, cluster=wsi_unet.ClusterOptions(scheduler=address)
        ).pixel_error
        > 0
    )
    image(prediction, 1)
    assert (
        wsi_unet.evaluate(
            prediction, truth, cluster=wsi_unet.ClusterOptions(scheduler=address)
        ).pixel_error
        == 0
    )


def test_an_error_in_a_worker_is_reported_by_the_client(tmp_path: Path, address: str) -> None:
    prediction = tmp_path / "p.tif"
    Image.fromarray(np.full(SHAPE, 70_000, np.int32)).save(prediction)
    with pytest.raises(EvaluationError, match=r"p\.tif: holds the value 70000"):
        wsi_unet.evaluate(
            prediction,
            image(tmp_path / "t.png", 0),
            cluster=wsi_unet.ClusterOptions(scheduler=address),
        )


def test_a_file_that_a_worker_cant_open_is_reported_by_the_client(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction, truth = image(tmp_path / "p.png", 0), image(tmp_path / "t.png", 1)
    good = truth.read_bytes()

    def spoil(*arguments: Any, **options: Any) -> None:
        truth.write_bytes(good[:100])  # this process has opened it by now

    with monkeypatch.context() as patch:
        patch.setattr(cluster, "check_paths", spoil)
        with pytest.raises(EvaluationError, match=r"t\.png: can't be decoded"):
            wsi_unet.evaluate(prediction, truth, cluster=wsi_unet.ClusterOptions(scheduler=address))
    truth.write_bytes(good)
    assert (
        wsi_unet.evaluate(
            prediction, truth, cluster=wsi_unet.ClusterOptions(scheduler=address)
        ).pixel_error
        > 0
    )


def comparison(folder: Path) -> Comparison:
    return Comparison(str(image(folder / "p.png", 0)), str(image(folder / "t.png", 1)))


def test_workers_that_die_are_reported(tmp_path: Path) -> None:
    # Defined in here, it is sent as code.
    def die(pair: Pair, index: BlockIndex) -> int:
        os._exit(1)

    with (
        pytest.raises(ClusterError, match="died while they compared"),
        open_comparison(
            comparison(tmp_path), wsi_unet.ClusterOptions(workers=1, max_retries=0)
        ) as (
            _,
            map_reduce,
        ),
    ):
        map_reduce(die, [(0, 0)], lambda parts: parts[0])


def test_a_cluster_without_workers_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(pair: Pair, index: BlockIndex) -> int:
        os._exit(1)

    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(waiting, "NO_WORKERS_SECONDS", 1.0)
    with (
        scheduler(tmp_path) as address,
        worker(address),
        pytest.raises(ClusterError, match="has had no workers"),
        open_comparison(comparison(tmp_path), wsi_unet.ClusterOptions(scheduler=address)) as (
            _,
            map_reduce,
        ),
    ):
        map_reduce(die, [(0, 0)], lambda parts: parts[0])


def test_a_scheduler_that_dies_is_reported(tmp_path: Path) -> None:
    with scheduler(tmp_path) as address, worker(address):

        def kill_it(pair: Pair, index: BlockIndex) -> int:
            with suppress(OSError, TimeoutError):
                Client(address).run_on_scheduler(os._exit, 1)
            time.sleep(5)
            return 0

        with (
            pytest.raises(ClusterError, match="went away; start it again"),
            open_comparison(comparison(tmp_path), wsi_unet.ClusterOptions(scheduler=address)) as (
                _,
                map_reduce,
            ),
        ):
            map_reduce(kill_it, [(0, 0)], lambda parts: parts[0])


def test_what_other_processes_cant_do_is_refused(tmp_path: Path, address: str) -> None:
    labels = xr.DataArray(blobs(SHAPE), dims=("y", "x"))
    path = image(tmp_path / "t.png", 1)
    with pytest.raises(OptionError, match="give the path that they were opened from"):
        wsi_unet.evaluate(labels, path, cluster=wsi_unet.ClusterOptions(scheduler=address))
    with pytest.raises(OptionError, match=r"`em` .* leave out `workers` and `scheduler`"):
        wsi_unet.evaluate(path, path, em=True, cluster=wsi_unet.ClusterOptions(workers=2))
    with pytest.raises(OptionError, match="not both"):
        wsi_unet.evaluate(path, path, cluster=wsi_unet.ClusterOptions(workers=2, scheduler=address))
    with pytest.raises(OptionError, match="`performance_report` needs a Dask cluster"):
        wsi_unet.evaluate(
            path, path, cluster=wsi_unet.ClusterOptions(performance_report="report.html")
        )
    with pytest.raises(OptionError, match="TLS files are for an existing cluster"):
        wsi_unet.evaluate(path, path, cluster=wsi_unet.ClusterOptions(tls_ca="ca.pem"))
    with pytest.raises(AnnotationError, match=r"s3://b/x\.geojson: annotations must be a file"):
        wsi_unet.evaluate(path, path, within="s3://b/x.geojson")
    with pytest.raises(AnnotationError, match=r"s3://b/x\.geojson: annotations must be a file"):
        wsi_unet.evaluate(path, "s3://b/x.geojson")

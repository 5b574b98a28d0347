"""Clusters that are lost in the middle of a run: it ends with one line, and resumes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.clusters import running, until, worker
from support.oracle import balanced_model, textured, write_png
from support.runs import CONFIG, OPTIONS, array_objects

import wsi_unet
from wsi_unet.dask_cluster import connection, waiting
from wsi_unet.errors import ClusterError
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.runs import cohort


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide of 12 blocks, a model, and an undisturbed run."""
    folder, image = tmp_path_factory.mktemp("lost"), textured(1800, 1300)
    write_png(folder / "slide.png", image)
    balanced_model(CONFIG, image, folder / "model")
    segment(folder, folder / "whole")
    return folder


def segment(folder: Path, output: Path, **options: Any) -> wsi_unet.Report:
    return wsi_unet.segment(folder / "slide.png", output, folder / "model", **(OPTIONS | options))


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 5.0)
    monkeypatch.setattr(waiting, "NO_WORKERS_SECONDS", 1.0)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(cohort, "LIMITS", Limits(count_seconds=0.1, look_seconds=0.1))


@contextmanager
def scheduler_at(port: int, file: Path) -> Iterator[int]:
    """Run a scheduler at a port; yield its process."""
    program = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port)
    with running(*map(str, program), "--no-dashboard", "--scheduler-file", file) as process:
        until(lambda: file.exists() and bool(file.read_text()), "the scheduler starts")
        assert json.loads(file.read_text())["address"] == f"tcp://127.0.0.1:{port}"
        yield process.pid


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    ("phase", "comes_back"), [("opening", False), ("segmenting", False), ("segmenting", True)]
)
def test_a_lost_scheduler(
    folder: Path, tmp_path: Path, phase: str, comes_back: bool, caplog: pytest.LogCaptureFixture
) -> None:
    port, lost = free_port(), list[wsi_unet.RunProgress]()
    with ExitStack() as stack:
        pid = stack.enter_context(scheduler_at(port, tmp_path / "first.json"))
        address = f"tcp://127.0.0.1:{port}"
        only = stack.enter_context(worker(address, "--death-timeout", "1"))

        def lose(progress: wsi_unet.RunProgress) -> None:
            if progress.phase == phase and not lost:
                lost.append(progress)
                for process in (pid, only.pid):
                    os.kill(process, signal.SIGKILL)
                if comes_back:
                    stack.enter_context(scheduler_at(port, tmp_path / "second.json"))

        with pytest.raises(ClusterError) as raised:
            segment(
                folder,
                tmp_path / "out",
                cluster=wsi_unet.ClusterOptions(scheduler=address),
                on_progress=lose,
            )
    assert len(lost) == 1
    message = str(raised.value)
    assert "\n" not in message
    if comes_back:
        assert "the Dask cluster has had no workers for 1 s; " in message
        assert [r.getMessage() for r in caplog.records if "waiting for new ones" in r.getMessage()]
    else:
        assert re.match(rf"the Dask scheduler( at {address})? went away; ", message)
    assert message.endswith("run the same command")
    assert segment(folder, tmp_path / "out").state == "finished"
    assert array_objects(tmp_path / "out") == array_objects(folder / "whole")

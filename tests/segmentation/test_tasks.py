"""Tasks: what is sent to workers is small, immutable and unique."""

from __future__ import annotations

import doctest
import pickle
from dataclasses import replace

from wsi_unet.segmentation.worker import task as module
from wsi_unet.segmentation.worker.task import Run, Task

RUN = Run("/results/slide.ome.zarr", "nuclei", signature="5f3a" * 16, session="9c1d" * 3)


def test_the_examples_are_right() -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_a_task_is_small_and_comes_back_equal() -> None:
    sent = pickle.dumps(Task(RUN, (3, 4)))
    assert len(sent) < 1000
    assert pickle.loads(sent) == Task(RUN, (3, 4))
    assert {Task(RUN, (3, 4)), Task(RUN, (3, 4))} == {Task(RUN, (3, 4))}


def test_keys_are_unique() -> None:
    runs = (RUN, replace(RUN, name="image"), replace(RUN, session="other"))
    tasks = [
        Task(run, (i, j), attempt)
        for run in runs
        for i in (0, 1, 11)
        for j in (0, 1, 11)
        for attempt in (1, 2)
    ]
    assert len({task.key for task in tasks}) == len(tasks)
    assert {task.key.split("-")[0] for task in tasks} == {"block"}

"""Batches are the samples that their iteration names, whoever makes them."""

from __future__ import annotations

import os
import time

import psutil
import pytest
import torch
from support.numbered import Numbered

from wsi_unet.errors import SlideError, TrainingError
from wsi_unet.training.learning.batches import Batch, making_batches


def batches(samples: Numbered, workers: int, *, first: int = 3, last: int = 8) -> list[Batch]:
    with making_batches(
        samples, size=2, first=first, last=last, workers=workers, pinned=False
    ) as stream:
        return [stream.next() for _ in range(first, last)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_batch_is_the_samples_of_its_iteration(workers: int) -> None:
    found = batches(Numbered(), workers)
    for iteration, batch in enumerate(found, 3):
        numbers = [2 * iteration, 2 * iteration + 1]
        assert batch.weights[:, 0, 0].tolist() == numbers
        assert batch.images.shape == (2, 3, 4, 4)
        assert batch.images[:, 1, 2, 3].tolist() == [number + 0.25 for number in numbers]
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.images.dtype == batch.weights.dtype == torch.float32
        on_device = batch.to("cpu")
        assert on_device.labels.dtype == torch.int64
        assert on_device.labels[:, 1, 1].tolist() == [0, 1]
        assert on_device.labels[:, 0, 0].tolist() == [255, 255], "ignored stays ignored"
        assert batch.one(1).where == batch.where[1:]
        assert batch.one(1).weights.shape == (1, 4, 4)
    makers = {int(where.split()[-1]) for batch in found for where in batch.where}
    assert len(makers) == max(1, workers)
    assert (os.getpid() in makers) == (workers == 0)


def test_its_processes_end_with_it() -> None:
    makers = {int(w.split()[-1]) for batch in batches(Numbered(), 2) for w in batch.where}
    deadline = time.monotonic() + 60
    while any(map(psutil.pid_exists, makers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cant_be_read_is_said_as_it_is(workers: int) -> None:
    with pytest.raises(SlideError) as caught:
        batches(Numbered("slide", at=9), workers)
    assert str(caught.value) == "a.svs: tile 7 is damaged"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_is_shown_as_one(workers: int) -> None:
    with pytest.raises(KeyError, match="bug"):
        batches(Numbered("bug", at=9), workers)


def test_a_process_that_dies_is_one_clear_line() -> None:
    with pytest.raises(TrainingError, match="a process that makes samples has ended") as caught:
        batches(Numbered("death", at=9), 1)
    assert "\n" not in str(caught.value)
    assert "--workers" in str(caught.value)


def test_waiting_is_counted() -> None:
    with making_batches(Numbered(), size=1, first=0, last=6, workers=1, pinned=False) as stream:
        stream.next()
        assert stream.seconds_waited > 0.001, "the process has to start first"
        waits = []
        for _ in range(5):
            time.sleep(0.2)
            stream.next()
            waits.append(stream.seconds_waited)
        assert min(waits) < 0.1

"""Batches hold the samples of their iteration, whichever process makes them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import torch
from support.numbered import Mishap, Numbered

from wsi_unet.errors import SlideError, TrainingError
from wsi_unet.training.augmentation.samples import Sample
from wsi_unet.training.loop.batches import Batch, making_batches


@dataclass(frozen=True)
class Recorded(Numbered):
    """Samples that each leave a file in `folder`."""

    folder: Path = Path()

    def __getitem__(self, number: int) -> Sample:
        (self.folder / str(number)).touch()
        return super().__getitem__(number)

    def started(self) -> int:
        """Return how many were asked for."""
        return len(list(self.folder.iterdir()))


class Slow(Numbered):
    """Samples that never return after the first batch."""

    def __getitem__(self, number: int) -> Sample:
        time.sleep(600 if number > 1 else 0)
        return super().__getitem__(number)


def kept(batch: Batch) -> Batch:
    """Return a copy: the stream uses the memory again."""
    return replace(
        batch,
        images=batch.images.clone(),
        labels=batch.labels.clone(),
        weights=batch.weights.clone(),
    )


def batches(samples: Numbered, workers: int, ahead: bool = False) -> list[Batch]:
    iterations = range(3, 8)
    with making_batches(
        samples, size=2, iterations=iterations, workers=workers, ahead=ahead
    ) as stream:
        return [kept(stream.next()) for _ in iterations]


def makers_of(found: list[Batch]) -> set[int]:
    return {int(where.split()[-1]) for batch in found for where in batch.where}


@pytest.mark.parametrize(("workers", "ahead"), [(0, False), (1, False), (2, False), (3, True)])
def test_a_batch_is_the_samples_of_its_iteration(workers: int, ahead: bool) -> None:
    found = batches(Numbered(seconds=0.02), workers, ahead)
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
        assert batch.single(1).where == batch.where[1:]
        assert batch.single(1).weights.shape == (1, 4, 4)
    assert len(makers_of(found)) == max(1, workers)
    assert (os.getpid() in makers_of(found)) == (workers == 0)


@pytest.mark.parametrize("ahead", [False, True])
def test_what_the_network_learns_from_stays_while_others_are_made(ahead: bool) -> None:
    with making_batches(
        Numbered(side=64), size=3, iterations=range(30), workers=2, ahead=ahead
    ) as stream:
        for iteration in range(30):
            batch = stream.next()
            time.sleep(0.01)
            for place in range(3):
                assert (batch.weights[place] == 3 * iteration + place).all()
                assert (batch.images[place, 0] == 3 * iteration + place).all()


def test_batches_are_made_in_turns_or_ahead(tmp_path: Path) -> None:
    """Count the samples started before the first batch is returned, and a while after it."""
    for ahead, first, later in ((False, 2, 2), (True, 2, 8)):
        samples = Recorded(folder=tmp_path / str(ahead))
        samples.folder.mkdir()
        with making_batches(
            samples, size=2, iterations=range(30), workers=2, ahead=ahead
        ) as stream:
            stream.next()
            assert samples.started() >= first
            deadline = time.monotonic() + (60 if ahead else 0.5)
            while samples.started() < (later if ahead else later + 1):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            assert samples.started() == later


def test_its_processes_end_with_it() -> None:
    makers = makers_of(batches(Numbered(), 2))
    deadline = time.monotonic() + 60
    while any(map(psutil.pid_exists, makers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_read_error_is_passed_on_unchanged(workers: int) -> None:
    with pytest.raises(SlideError) as caught:
        batches(Numbered("slide", at=9), workers)
    assert str(caught.value) == "a.svs: tile 7 is damaged"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_is_shown_as_one(workers: int) -> None:
    with pytest.raises(KeyError, match="bug"):
        batches(Numbered("bug", at=9), workers)


@pytest.mark.parametrize(
    ("mishap", "said"), [("odd bug", "OddError: odd: a and b"), ("exit", "SystemExit: 3")]
)
def test_a_bug_that_cant_be_pickled_is_reported(mishap: Mishap, said: str) -> None:
    with pytest.raises(RuntimeError, match=said) as caught:
        batches(Numbered(mishap, at=9), 1)
    assert "numbered.py" in str(caught.value), "where"


@pytest.mark.parametrize("ahead", [False, True])
def test_nobody_waits_for_samples_that_arent_wanted_any_more(ahead: bool) -> None:
    """As after Ctrl-C while the next batch is waited for."""
    start = time.monotonic()
    with making_batches(Slow(), size=2, iterations=range(5), workers=2, ahead=ahead) as stream:
        stream.next()
        handler = signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, 1)
        try:
            with pytest.raises(KeyboardInterrupt):
                stream.next()
        finally:
            signal.signal(signal.SIGALRM, handler)
    assert time.monotonic() - start < 300, "a sample takes 600 s"


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def test_a_process_that_dies_is_one_clear_line() -> None:
    with pytest.raises(TrainingError, match="a process that makes samples has died") as caught:
        batches(Numbered("death", at=9), 1)
    assert "\n" not in str(caught.value)
    assert "`workers=0`" in str(caught.value)


def test_too_little_shared_memory_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm): No space left\nC++ trace")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(TrainingError, match="too little shared memory") as caught:
        batches(Numbered(), 1)
    assert "\n" not in str(caught.value)
    assert "`workers=0`" in str(caught.value)
    assert len(batches(Numbered(), 0)) == 5


def test_waiting_is_counted() -> None:
    samples = Numbered(seconds=0.2)
    for workers, ahead in ((0, False), (1, False), (1, True)):
        with making_batches(
            samples, size=1, iterations=range(4), workers=workers, ahead=ahead
        ) as stream:
            stream.next()
            assert stream.seconds_waited >= 0.2
            time.sleep(2.0 if ahead else 0.0)
            stream.next()
            assert (stream.seconds_waited < 0.2) == ahead

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from wsi_unet.slides import memory
from wsi_unet.slides.memory import WindowMemory


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGE", 1)


def address(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_used_again_only_after_its_last_view_is_gone() -> None:
    source = WindowMemory()
    first = source.empty((10, 10, 3))
    first[...] = 1
    where, view = address(first), first[2:5, ::2][1:]
    del first
    gc.collect()
    second = source.empty((10, 10, 3))
    second[...] = 2
    assert address(second) != where
    assert (view == 1).all()
    del view
    gc.collect()
    third = source.empty((9, 10, 3))
    assert address(third) == where
    assert third.flags.writeable
    assert third.flags.c_contiguous
    assert third.shape == (9, 10, 3)
    assert (second == 2).all()


def test_small_blocks_are_not_used_for_larger_arrays_nor_large_ones_for_small() -> None:
    source = WindowMemory()
    where = address(source.empty((10, 10, 3)))
    gc.collect()
    assert [one.size for one in source._free] == [300]
    kept = [source.empty((11, 10, 3)), source.empty((5, 10, 3))]
    assert where not in [address(one) for one in kept]


def test_free_memory_is_bounded() -> None:
    source = WindowMemory()
    arrays = [source.empty((10, 10, 3)) for _ in range(9)]
    arrays.clear()
    gc.collect()
    assert len(source._free) == memory.FREE_BLOCKS
    source.clear()
    assert not source._free


def test_threads_never_share_a_block() -> None:
    source = WindowMemory()
    start = threading.Barrier(4)

    def work(mark: int) -> bool:
        start.wait(10)
        for _ in range(300):
            array = source.empty((20, 20))
            array[...] = mark
            if not (array == mark).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))

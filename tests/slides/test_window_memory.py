from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.locations import Location
from wsi_unet.slides import open_slide, window_memory
from wsi_unet.slides.readers.tiff import TiffReader
from wsi_unet.slides.sources.opening import open_source
from wsi_unet.slides.window_memory import WindowMemory


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_memory, "LARGE_BYTES", 1)


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
    assert len(source._free) == window_memory.MAX_FREE_BUFFERS
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


def test_memory_that_comes_back_in_the_middle_of_another_call_stops_nothing() -> None:
    """The garbage collector may run a finaliser in the thread that holds the lock."""
    source = WindowMemory()

    def interrupted() -> None:
        with source._lock:
            source.give_back(np.empty(300, np.uint8))

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert len(source._free) == 1


def test_a_failed_read_gives_its_window_back_at_once(
    example_slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = TiffReader(open_source(Location.parse(example_slide_path)), threads=2)
    monkeypatch.setattr(os, "pread", lambda file, length, offset: b"")
    assert reader._tiles is not None
    gc.collect()
    gc.disable()  # what is left over must not need it
    try:
        with pytest.raises(SlideError, match="truncated") as caught:
            reader.read(0, Box(0, 0, 960, 960))
        del caught
        assert len(reader._tiles._memory._free) == 1
    finally:
        gc.enable()
        reader.close()


def test_a_slide_that_is_dropped_leaves_no_file_open(example_slide_path: Path) -> None:
    open_files = Path("/proc/self/fd")
    gc.collect()
    before = len(list(open_files.iterdir()))
    for _ in range(3):
        slide = open_slide(example_slide_path)
        slide.read(0, Box(0, 0, 500, 500))
        del slide
    gc.collect()
    assert len(list(open_files.iterdir())) == before

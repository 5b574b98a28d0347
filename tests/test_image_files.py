"""Images are opened in several threads at once, and leave Python's warnings as they are."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from PIL import Image

from wsi_unet.image_files import open_image
from wsi_unet.samples import image_orientation


class _WaitingFile(io.BytesIO):
    """A file that says when it is first read, and then waits."""

    def __init__(self, data: bytes, reached: Event, awaited: Event) -> None:
        super().__init__(data)
        self._reached, self._awaited = reached, awaited

    def read(self, size: int | None = -1) -> bytes:
        self._reached.set()
        assert self._awaited.wait(60)
        return super().read(size)


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp"])
def test_threads_that_overlap_leave_the_warnings_as_they_were(kind: str) -> None:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, kind)
    data = file.getvalue()
    first, second, first_done = Event(), Event(), Event()
    state = warnings.filters, warnings.showwarning
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(open_image, _WaitingFile(data, first, second), data[:8])
        assert first.wait(60)
        other = pool.submit(open_image, _WaitingFile(data, second, first_done), data[:8])
        assert image_orientation(one.result(60)) == 1
        first_done.set()
        assert other.result(60).size == (8, 8)
    assert warnings.filters is state[0]
    assert warnings.showwarning is state[1]

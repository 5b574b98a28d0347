"""Pictures that are written row by row, as Pillow reads them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from wsi_unet.png_files import PngWriter


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (123, 321)])
@pytest.mark.parametrize("smooth", [True, False])
def test_whatever_pieces_it_is_written_in(shape: tuple[int, int], smooth: bool) -> None:
    random = np.random.default_rng(shape[0])
    picture = random.integers(0, 256, (*shape, 3), np.uint8)
    if smooth:
        picture[:] = np.arange(shape[1])[:, None] * [1, 2, 3] + np.arange(shape[0])[:, None, None]
    for _ in range(3):
        file = io.BytesIO()
        writer = PngWriter(file, shape[1], shape[0])
        cuts = np.sort(random.integers(0, shape[0] + 1, 4))
        for part in np.split(picture, cuts):
            writer.write(part)
        writer.close()
        with Image.open(io.BytesIO(file.getvalue())) as image:
            image.verify()
        with Image.open(io.BytesIO(file.getvalue())) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            assert np.array_equal(np.asarray(image), picture)

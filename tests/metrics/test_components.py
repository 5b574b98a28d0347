from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label

from wsi_unet.geometry import BlockIndex
from wsi_unet.metrics.components import ChunkEdges, JoinedComponents, label_chunk

LABELS = arrays(np.uint8, (13, 17), elements=st.sampled_from([0, 0, 1, 2]))


@settings(max_examples=150)
@given(LABELS, st.integers(1, 18), st.integers(1, 18))
def test_objects_are_those_of_the_whole(labels: np.ndarray, height: int, width: int) -> None:
    """Against scikit-image on all of it, up to the numbering."""
    numbers = np.zeros(labels.shape, np.int64)
    edges: dict[BlockIndex, ChunkEdges] = {}
    for i, y in enumerate(range(0, 13, height)):
        for j, x in enumerate(range(0, 17, width)):
            part = slice(y, y + height), slice(x, x + width)
            numbers[part], edges[i, j] = label_chunk(labels[part], len(edges))
    found = JoinedComponents.from_edges(edges).find_objects(numbers)
    expected = label(labels, background=0, connectivity=2)  # type: ignore[no-untyped-call]
    assert ((found > 0) == (expected > 0)).all()
    pairs = {*zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})

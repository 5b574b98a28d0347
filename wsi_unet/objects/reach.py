"""How far the objects of a part reach, which says where they are needed without reading it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from wsi_unet.labels.documents import Count, StoredDocument
from wsi_unet.objects.search import Objects

Row = Annotated[str, Field(pattern=r"^\d{1,9}$")]
"""A row of blocks, as a key of JSON."""


class PartReach(StoredDocument):
    """How far the objects of a part reach.

    Attributes:
        box: (y0, x0, y1, x1) of all of them, px of the labels; None if there are none.
        rows: how many of them have their first pixel in each row of blocks.
    """

    box: tuple[Count, Count, Count, Count] | None = None
    rows: dict[Row, Count] = Field(default_factory=dict)

    @classmethod
    def of(cls, objects: Objects, side: int) -> PartReach:
        """Return how far objects reach; `side` is that of a block, px."""
        if not len(objects):
            return cls()
        y0, x0 = objects.boxes[:, :2].min(axis=0).tolist()
        y1, x1 = objects.boxes[:, 2:].max(axis=0).tolist()
        rows, counts = np.unique(objects.first[:, 0] // side, return_counts=True)
        return cls(
            box=(y0, x0, y1, x1),
            rows={
                str(row): count for row, count in zip(rows.tolist(), counts.tolist(), strict=True)
            },
        )

"""Stored probabilities, read for the class of the object that each pixel is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.labels.documents import (
    MOST_CLASSES,
    DamagedError,
    read_array_shape,
    read_group_attributes,
)
from wsi_unet.labels.writer import read_shards
from wsi_unet.storage.store import ByteStore


@dataclass(frozen=True)
class ProbabilityGroup:
    """The probabilities of a run: the key of their group, and the class of each channel."""

    key: str
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StoredProbabilities:
    """The probabilities that a run stored beside its labels.

    Attributes:
        store: the output.
        group: their group.
        grid: their blocks, which are the labels'.
        channel: (256,) the channel of each label value's class.
        shards: checksum of each block, by block; blocks that are all 0 are left out.
    """

    store: ByteStore
    group: ProbabilityGroup
    grid: BlockGrid
    channel: NDArray[np.intp]
    shards: Mapping[BlockIndex, str]

    @classmethod
    def open(
        cls,
        store: ByteStore,
        group: ProbabilityGroup,
        grid: BlockGrid,
        classes: Mapping[int, str],
        shards: Mapping[BlockIndex, str],
    ) -> Self:
        """Open the probabilities of one label group.

        Args:
            store: the output.
            group: their group.
            grid: the blocks of the labels.
            classes: names of the labels' classes by label value.
            shards: see the attributes.

        Raises:
            DamagedError: they lie on other pixels, or are of other classes.
        """
        found = read_array_shape(store, f"{group.key}/0")
        if found != ((len(group.classes), *grid.shape), grid.side) or not (
            {*classes.values()} <= {*group.classes}
        ):
            raise DamagedError(
                f"{store}: the probabilities {group.key!r} don't belong to the labels beside them; "
                "segment again with `overwrite=True`"
            )
        channel = np.zeros(MOST_CLASSES, np.intp)
        for value, name in classes.items():
            channel[value] = group.classes.index(name)
        return cls(store, group, grid, channel, shards)

    def read(
        self, box: Box, at: NDArray[np.int64], classes: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Return the probabilities (n,) of one class each of n pixels, 0 to 255.

        Args:
            box: px of the labels.
            at: which of its pixels, row by row.
            classes: (n,) label values of the classes.

        Raises:
            OutputError: a shard is damaged, missing or another one than was written.
        """
        count = len(self.group.classes)
        stored = read_shards(
            self.store, self.group.key, 0, self.grid, box, count, checksums=self.shards
        )
        own: NDArray[np.uint8] = stored.reshape(count, -1)[self.channel[classes], at]
        return own


def find_probabilities(store: ByteStore, run: str) -> ProbabilityGroup | None:
    """Return the group of a run's probabilities; None if it stored none.

    Raises:
        DamagedError: its metadata isn't as a run writes it.
    """
    key = f"probability/{run}"
    attributes = read_group_attributes(store, key, "channels")
    if attributes is None:
        return None
    channels = attributes["ome"]["omero"]["channels"]
    return ProbabilityGroup(key, tuple(each["label"] for each in channels))
